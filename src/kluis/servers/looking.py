"""A look at servers that are not trusted yet: which certificate they show, and what they say.

A connection that verifies nothing is made for that, and nothing goes over it but one
``GET sys/seal-status``. Whether authorities vouch for the certificate, and whether it has the
name, is tried in handshakes of their own, over which nothing is sent at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from yarl import URL

from kluis.addresses import is_plain_loopback
from kluis.errors import KluisError, ServerHung, ServerUnreachable, WrongServer
from kluis.servers.client import SealStatus, ServerClient
from kluis.servers.declared import Server
from kluis.servers.http import Connector
from kluis.servers.listener import User, named_soon, owner
from kluis.servers.tls import (
    OTHER_NAME,
    Certificate,
    Onlooker,
    ServerTls,
    certificates,
    pin_of,
    read_certificate,
    trusting,
)
from kluis.servers.watch.judging import shown_version

TIMEOUT_S: Final = 10.0
AT_ONCE: Final = 16
MOST_AUTHORITIES: Final = 16

# OpenSSL's codes (x509_vfy.h) of what a verification ended with
_EARLY, _EXPIRED = 9, 10
_UNKNOWN: Final = frozenset({2, 18, 19, 20, 21})

_WORD: Final = re.compile(r"[A-Za-z0-9._-]{0,32}")
_CLUSTER_ID: Final = re.compile(r"[A-Za-z0-9-]{0,64}")


class Trust(StrEnum):
    """What the authorities say of a certificate."""

    PLAIN = "plain-http"  # there is none
    VOUCHED = "vouched"
    UNKNOWN = "unknown-authority"  # self-signed, or signed by somebody who is not known here
    EXPIRED = "expired"
    EARLY = "not-yet-valid"
    REFUSED = "refused"  # for another reason: its purpose, its key, its algorithm


@dataclass(frozen=True, slots=True)
class Look:
    """One node as it was seen. ``certificate`` is None over plain http.

    ``user`` is who listens, over plain http within this machine and where the system tells.
    ``authorities`` are the pins of those in the declared ``ca`` file each of which alone vouches.
    """

    address: str
    status: SealStatus
    certificate: Certificate | None = None
    trust: Trust = Trust.PLAIN
    name_fits: bool = True
    authorities: tuple[str, ...] = ()
    user: User | None = None


async def look(server: Server) -> Mapping[str, Look | KluisError]:
    """What each node of a server shows and says, by their addresses.

    Raises KluisError when the nodes, or the declared authorities, can't be found out.
    """
    pins = _authorities(server.tls)
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(address: str) -> Look | KluisError:
        try:
            async with turns:
                return await _look(address, server.tls, pins)
        except KluisError as error:
            return error

    addresses = await server.discovery.addresses()
    return dict(zip(addresses, await asyncio.gather(*map(one, addresses)), strict=True))


async def prove(tls: ServerTls, addresses: Sequence[str]) -> None:
    """Ask nodes once more, believing whom ``tls`` believes. Raises KluisError."""
    for address in addresses:
        async with ServerClient(address, tls=tls, timeout_s=TIMEOUT_S) as client:
            await client.seal_status()


def _authorities(tls: ServerTls) -> tuple[str, ...]:
    if tls.ca is None:
        return ()
    return tuple(pin_of(one) for one in certificates(tls.ca)[:MOST_AUTHORITIES])


async def _look(address: str, tls: ServerTls, pins: Sequence[str]) -> Look:
    onlooker, user = Onlooker(), None

    async def note(transport: asyncio.BaseTransport) -> None:
        nonlocal user
        if is_plain_loopback(address):
            with contextlib.suppress(WrongServer):  # that it can't be known is shown, too
                user = await named_soon(await owner(address, transport))

    connector = Connector(note, ssl=onlooker.context())
    async with ServerClient(address, tls=tls, timeout_s=TIMEOUT_S, connector=connector) as client:
        seen = Look(address, _plain(await client.seal_status()), user=user)
    if onlooker.shown is None:
        return seen
    certificate = _read(address, onlooker.shown)
    by_name = await _verdict(address, tls.server_name, trusting(certificate.pem))
    vouching = [pin for pin in pins if await _vouches(address, tls, pin)]
    return replace(
        seen,
        certificate=certificate,
        trust=_trust(by_name, await _verdict(address, tls.server_name, _nameless(tls, None))),
        name_fits=by_name not in OTHER_NAME,
        authorities=tuple(vouching),
    )


async def _vouches(address: str, tls: ServerTls, pin: str) -> bool:
    return await _verdict(address, tls.server_name, _nameless(tls, pin)) == 0


def _nameless(tls: ServerTls, pin: str | None) -> ssl.SSLContext:
    """The same authorities, or the one of that pin alone, whatever the name."""
    context = ServerTls(tls.ca, pin).context()
    context.check_hostname = False
    return context


def _trust(alone: int, vouched: int) -> Trust:
    """From the certificate on its own, and from what the authorities say of it."""
    dated = next((code for code in (alone, vouched) if code in (_EARLY, _EXPIRED)), 0)
    if dated:
        return Trust.EXPIRED if dated == _EXPIRED else Trust.EARLY
    if vouched == 0:
        return Trust.VOUCHED
    if vouched in _UNKNOWN and (alone == 0 or alone in OTHER_NAME):
        return Trust.UNKNOWN
    return Trust.REFUSED


async def _verdict(address: str, server_name: str | None, context: ssl.SSLContext) -> int:
    """OpenSSL's code for the server's certificate; 0 when the context believes it."""
    url = URL(address)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(
                url.host, url.port, ssl=context, server_hostname=server_name or url.host
            )
    except ssl.SSLCertVerificationError as error:
        return error.verify_code
    except TimeoutError:
        raise ServerHung(
            f"{address} did not answer within {TIMEOUT_S:g} s",
            "it took one connection, and hangs in the next",
            "check its log, then look again",
        ) from None
    except OSError:
        raise ServerUnreachable(
            f"{address} can't be reached any more",
            "it answered once, and then ended the connection",
            "check that it runs, then look again",
        ) from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return 0


def _read(address: str, der: bytes) -> Certificate:
    try:
        return read_certificate(der)
    except ValueError:
        raise WrongServer(
            f"the certificate of {address} can't be read",
            "it is damaged, or of a kind that is not known here",
            "have another one issued for it",
        ) from None


def _plain(status: SealStatus) -> SealStatus:
    """What a stranger says, in forms that can do no harm in a terminal or in kluis.toml."""
    return replace(
        status,
        seal_type=status.seal_type if _WORD.fullmatch(status.seal_type) else "",
        storage_type=status.storage_type if _WORD.fullmatch(status.storage_type) else "",
        version=shown_version(status),
        cluster_name=status.cluster_name if _WORD.fullmatch(status.cluster_name) else "",
        cluster_id=status.cluster_id if _CLUSTER_ID.fullmatch(status.cluster_id) else "",
    )

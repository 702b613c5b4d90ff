"""One node asked over one connection.

A ``Line`` is one TCP connection and never another one: who is at its other end was proven in its
handshake, and all that is asked, and every share that is sent, goes over it. When it ends, so does
the line. Its idle end is watched: a process that ends closes it, so a restart is known at once.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from kluis.addresses import host_of, is_loopback
from kluis.errors import WrongServer
from kluis.servers.client import SealStatus, ServerClient
from kluis.servers.http import Connector
from kluis.servers.listener import Prove, proving
from kluis.servers.tls import ServerTls
from kluis.servers.watch.evidence import Answer

if TYPE_CHECKING:
    from aiohttp import ClientRequest
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

TIMEOUT_S: Final = 3.0
UNSEAL_TIMEOUT_S: Final = 20.0  # at the threshold a server reads its storage, or joins its cluster
ENDED_S: Final = 0.2  # until an end is told
YOUNG_S: Final = (
    1.0  # that of a younger one later: who ends each connection is not asked all the time
)
REFRESH_EVERY: Final = 16  # looks at an unsealed node, then its whole seal status is read again

_NEVER_S: Final = 86_400.0
_SYSTEM_CA_S: Final = 3600.0  # the system's authorities are read anew that often
# A machine that lost its power closes nothing. The kernel asks for it, which costs no look.
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 2),
    (socket.TCP_KEEPINTVL, 1),
    (socket.TCP_KEEPCNT, 3),
)


class Line:
    """One connection to the node at ``address``, made by the first question.

    ``context`` decides who is believed (None for plain http: then a declared user does), and
    ``place`` is the IP address that was knocked at. ``ended`` is called when the connection has
    ended by itself. Raises UsageError.
    """

    def __init__(
        self,
        address: str,
        tls: ServerTls,
        context: ssl.SSLContext | None,
        place: str,
        ended: Callable[[], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if address.startswith("https://") != (context is not None):
            raise ValueError("a context belongs to https, and only to it")
        self._connector = _OneConnection(context, proving(address, tls.user), place, ended)
        self._client = ServerClient(
            address, tls=tls, timeout_s=timeout_s, connector=self._connector
        )
        self._status: SealStatus | None = None
        self._looks = 0

    async def open(self) -> None:
        """Make ready; nothing is sent yet."""
        await self._client.__aenter__()

    async def close(self) -> None:
        """End the connection at once."""
        self._connector.abort()
        await self._client.__aexit__(None, None, None)

    @property
    def lost(self) -> bool:
        """Whether the connection was there and has ended."""
        transport = self._connector.transport
        return transport is not None and transport.is_closing()

    @property
    def certificate_ends_s(self) -> float | None:
        """Until when the server's certificate is valid (Unix time), where it showed one."""
        return self._connector.certificate_ends_s

    def let_it_be(self) -> None:
        """From now on the connection only ends when the other side ends it, or somebody asks.

        So its end means that the process ended, and not that the network was away for a while.
        """
        transport = self._connector.transport
        opened = None if transport is None else transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)

    async def look(self) -> Answer:
        """Ask for the state of the seal; of an unsealed node one cheap call, of a standby two.

        Raises ServerError.
        """
        self._looks += 1
        known = self._status
        if known is not None and not known.sealed and self._looks % REFRESH_EVERY:
            health = await self._client.health()
            if health.unsealed and not health.sealed:
                known = replace(known, cluster_id=health.cluster_id, version=health.version)
                return await self._unsealed(known, active=health.active)
        status = await self.seal_status()
        if status.sealed:
            return Answer(status, False, self._client.proxied)
        health = await self._client.health()
        return await self._unsealed(status, active=health.active and not health.sealed)

    async def _unsealed(self, status: SealStatus, *, active: bool) -> Answer:
        led = active or await self._client.led()
        return Answer(status, active, self._client.proxied, led)

    async def seal_status(self) -> SealStatus:
        """The state of the seal, in full. Raises ServerError."""
        self._status = await self._client.seal_status()
        return self._status

    async def unseal(self, share: str) -> None:
        """Send one share, in hex. Raises ServerError."""
        await self._client.unseal(share, timeout_s=UNSEAL_TIMEOUT_S)


class Lines:
    """Makes lines; keeps what decides whom to believe, until its files change."""

    def __init__(self) -> None:
        self._contexts: dict[ServerTls, tuple[tuple[int, ...], ssl.SSLContext]] = {}

    async def to(self, address: str, tls: ServerTls, place: str, ended: Callable[[], None]) -> Line:
        """A line to the node at ``address``, by the IP address that was knocked at.

        ``ended`` is called when the connection has ended by itself. Raises UsageError when the file
        of the authorities can't be used, and WrongServer for plain http that would leave this
        machine although its address says otherwise.
        """
        context = None
        if address.startswith("https://"):
            context = await self._context(tls)
        elif is_loopback(host_of(address)) and not ip_address(place).is_loopback:
            raise WrongServer(
                f"{address} leads away from this machine",
                "its name is that of loopback, and its address is another one",
                "check /etc/hosts, or name the server by its address",
            )
        line = Line(address, tls, context, place, ended)
        await line.open()
        return line

    async def _context(self, tls: ServerTls) -> ssl.SSLContext:
        stamp = _stamp(tls)
        known = self._contexts.get(tls)
        if known is None or known[0] != stamp:
            known = stamp, await asyncio.to_thread(tls.context)
            self._contexts[tls] = known
        return known[1]


def _stamp(tls: ServerTls) -> tuple[int, ...]:
    """Another one when the authorities may have changed."""
    if tls.ca is None:
        return (int(time.monotonic() / _SYSTEM_CA_S),)
    try:
        found = tls.ca.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


class _OneConnection(Connector):
    """Connects once, to one place. Whoever needs another connection proves it anew."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        prove: Prove | None,
        place: str,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(
            prove, ssl=context or True, resolver=_Only(place), limit=1, keepalive_timeout=_NEVER_S
        )
        self.transport: asyncio.Transport | None = None
        self.certificate_ends_s: float | None = None
        self._ended = ended
        self._spent = self._aborted = False
        self._made_s = 0.0

    def abort(self) -> None:
        """End the connection at once; nobody is told of it."""
        self._aborted = True
        if self.transport is not None:
            self.transport.abort()

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        if self._spent:
            raise aiohttp.ClientConnectionError
        self._spent = True
        protocol = await super()._create_connection(req, traces, timeout)
        transport = self.transport = protocol.transport
        if transport is None or protocol.closed is None:
            raise aiohttp.ClientConnectionError
        self._made_s = asyncio.get_running_loop().time()
        protocol.closed.add_done_callback(self._is_over)
        self.certificate_ends_s = _ends_s(transport.get_extra_info("peercert"))
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                opened.setsockopt(socket.IPPROTO_TCP, option, value)
        return protocol

    def _is_over(self, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # looked at, so that asyncio does not report it
        loop = asyncio.get_running_loop()
        loop.call_later(max(ENDED_S, self._made_s + YOUNG_S - loop.time()), self._tell)

    def _tell(self) -> None:
        if not self._aborted:
            self._ended()


def _ends_s(certificate: object) -> float | None:
    ends = certificate.get("notAfter") if isinstance(certificate, dict) else None
    return ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else None


class _Only(AbstractResolver):
    """Every name has this one address: it was looked up before."""

    def __init__(self, place: str) -> None:
        self._place = place

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - aiohttp's signature
    ) -> list[ResolveResult]:
        """The address."""
        of = socket.AF_INET6 if ":" in self._place else socket.AF_INET
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=self._place, port=port, family=of, proto=0, flags=numeric
            )
        ]

    async def close(self) -> None:
        """Nothing is kept."""

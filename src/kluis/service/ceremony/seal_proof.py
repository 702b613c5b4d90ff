"""Whether an auto seal works, as far as that can be known before an init asks for it.

A listening server with ``seal "transit"`` had its boot probe answered. When it was this kluis who
answered, that says little: the probe is answered while the keyring is locked, too. The audit log
tells which keys a server at that address probed; these must be ready for a real wrap.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from kluis.addresses import host_of
from kluis.errors import KluisError, NotRunning, ServerError
from kluis.facade.audit import read_record
from kluis.keyring.crypto import random_bytes
from kluis.service.house import House

TAIL_BYTES: Final = 8 << 20
_PROBE: Final = b"boot probe"
_PROBES: Final = ("boot probe", "boot probe while locked")


async def prove(house: House, name: str, address: str) -> str:
    """How it is known that the seal of a server works, in words. Raises KluisError if it does not.

    Only for a server with ``seal "transit"``.
    """
    sources = await _sources(host_of(address))
    path = house.audit.path if house.audit is not None else house.blueprint.audit
    keys = [] if path is None else await asyncio.to_thread(probed, path, sources)
    here = [(keyring, key) for keyring, key in keys if keyring in house.guards]
    if not here:
        return "another Transit than this kluis answered the boot probe of its seal"
    if not house.serving:
        raise NotRunning(
            f"{name} is sealed by this kluis, whose service is not running",
            "an init would fail half-way: its storage set up, and nobody with a key",
            "start kluis serve, and run this again",
        )
    for keyring, key in here:
        _wrap_and_unwrap(house, keyring, key)
    names = ", ".join(f"{keyring}/{key}" for keyring, key in here)
    return f"its seal is this kluis: {names} wraps and unwraps"


def _wrap_and_unwrap(house: House, keyring: str, key: str) -> None:
    transit = house.guards[keyring].transit(key)
    plaintext = random_bytes(32)
    found, _ = transit.decrypt(transit.encrypt(plaintext))
    if found != plaintext:
        raise KluisError(
            f"{keyring}/{key} does not give back what it took",
            "a server that it seals would never open again",
            "this is a fault of kluis; please report it",
        )


def probed(path: Path, sources: Iterable[str]) -> list[tuple[str, str]]:
    """Keyring and key of every boot probe from these addresses, by the end of an audit log.

    The newest 8 MiB of the present file are read; what is no record there is passed over.
    """
    found: dict[tuple[str, str], None] = {}
    known = frozenset(sources)
    for line in _tail(path):
        record = read_record(line) if _PROBE in line else None
        if record is None:
            continue
        said = record.members
        if said.get("what") in _PROBES and _plain(str(said.get("source"))) in known:
            found[str(said.get("keyring")), str(said.get("key"))] = None
    return list(found)


def _tail(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read(TAIL_BYTES).splitlines(keepends=True)
    except OSError:
        return []


async def _sources(host: str) -> set[str]:
    """The addresses of a host, as the audit log writes them."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise ServerError(
            f"the address of {host} can't be found out",
            "there is no such name, or the name server fails",
            "check the address of the server in kluis.toml",
        ) from None
    return {_plain(str(address[0])) for *_, address in found}


def _plain(text: str) -> str:
    """One way of writing for an address; ``::ffff:127.0.0.1`` is ``127.0.0.1``."""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)

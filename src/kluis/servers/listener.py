"""Who is at the other end of a connection within this machine: its user, as the kernel has it.

Over plain http nothing else proves who listens: whoever takes a port while the server is down is
asked in its place. The row of ``/proc/net/tcp`` with the two addresses of our connection, the other
way round, is the socket at its other end, and it is of the user that accepted it. Until then its
inode is 0, and its user 0 or the listener's, by the kernel's version; so nothing is said before.
"""

from __future__ import annotations

import asyncio
import errno
import pwd
import re
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from kluis.addresses import is_plain_loopback
from kluis.anchors.threads import Threads
from kluis.errors import ServerHung, ServerUnreachable, Unreachable, UsageError, WrongServer

Prove = Callable[[asyncio.BaseTransport], Awaitable[None]]
"""Looks at a new connection, and raises KluisError when it is to be used for nothing."""

TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_CHUNK_BYTES: Final = 1 << 16
MOST_CHUNKS: Final = 1024  # 64 MiB of a table: some 400 000 sockets

MOST_MISSES: Final = 5  # a table that changes while it is read may lack a row once
FIRST_PAUSE_S: Final = 0.001
LONGEST_PAUSE_S: Final = 0.2

LOOK_UP_S: Final = 2.0  # of a user's number: a directory service may hang
NAME_S: Final = 0.5  # of a name, which is only shown
MOST_LOOKUPS: Final = 4  # of one user at the same time
_BUSY_S: Final = 0.01  # until it is tried again whether a thread is free

OWN_FAULTS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)
"""Errors that say something of this process or machine, and nothing of a server."""

NOBODY: Final = 65_534  # what the kernel calls every user who has no number here
_ESTABLISHED, _SYN_RECV = 1, 3
_REST: Final = (
    rb" ([0-9A-F]{2}) [0-9A-F]+:[0-9A-F]+ [0-9A-F]{2}:[0-9A-F]+ [0-9A-F]+"  # state, queues, timer
    rb" +([0-9]{1,10}) +-?[0-9]{1,11} ([0-9]{1,20}) "  # uid, probes, inode
)

# What hangs can't be broken off, and holds up only itself: one user, or names alone.
_numbers: Final[dict[str, Threads]] = {}
_names: Final = Threads(MOST_LOOKUPS)
_tables: Final = Threads()

T = TypeVar("T")


class User(NamedTuple):
    """A user of this machine; ``name`` is empty where the number has none."""

    uid: int
    name: str


class Row(NamedTuple):
    """A socket, as far as it matters here."""

    state: int
    uid: int
    inode: int


def proving(address: str, user: str | int | None) -> Prove | None:
    """What refuses connections to anybody but ``user``, where that is declared and applies.

    It applies to plain http within this machine; elsewhere TLS proves more.
    """
    if user is None or not is_plain_loopback(address):
        return None
    return partial(_refuse_other, address, user)


async def _refuse_other(address: str, user: str | int, transport: asyncio.BaseTransport) -> None:
    wanted = await _uid(user)
    found = await owner(address, transport)
    if found != wanted:
        raise WrongServer(
            f"who listens at {address} is {shown(await named_soon(found))}",
            f"declared is the user {user}: another process may have taken the server's port",
            "find out who has it (ss -ltnp); if that is right: kluis server add pins its user",
        )


async def owner(address: str, transport: asyncio.BaseTransport) -> int:
    """The uid of the socket at the other end. Waits until it was accepted, without a deadline.

    Raises WrongServer where the kernel does not tell, ServerUnreachable when it ended, and OSError
    when this process can't look (``OWN_FAULTS``).
    """
    server, client = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    pause_s, misses = FIRST_PAUSE_S, 0
    while server and client and misses < MOST_MISSES and not transport.is_closing():
        row = await _run(_tables, partial(_row, address, server[:2], client[:2]))
        if row is not None and row.state == _ESTABLISHED and row.inode:
            return row.uid
        misses += row is None or row.state not in (_ESTABLISHED, _SYN_RECV)
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
    if misses < MOST_MISSES or transport.is_closing():
        raise ServerUnreachable(
            f"{address} ended the connection at once",
            "the server ended, or refuses connections",
            "check that it runs, and its log",
        )
    raise _untold(address, "this machine's tables of connections do not have its other end")


def _untold(address: str, why: str) -> WrongServer:
    return WrongServer(
        f"it can't be known who listens at {address}",
        f"{why}; it may be in a container with a network of its own, or this is no Linux",
        "give the server a certificate, and name it with https://",
    )


def _row(address: str, server: tuple[str, int], client: tuple[str, int]) -> Row | None:
    """The socket at ``server`` of a connection from ``client``, in whichever table it is."""
    for table, wide in zip(TABLES, (False, True), strict=True):
        pair = _written(server, wide=wide), _written(client, wide=wide)
        try:
            found = find(_read(table), *pair) if all(pair) else None
        except OSError as error:
            if wide and isinstance(error, FileNotFoundError):  # a kernel without IPv6
                continue
            if error.errno in OWN_FAULTS:
                raise
            raise _untold(address, f"{table} can't be read") from None
        if found is not None:
            return found
    return None


def _read(table: Path) -> bytes:
    with table.open("rb") as file:
        return b"".join(islice(iter(lambda: file.read(_CHUNK_BYTES), b""), MOST_CHUNKS))


def _written(end: tuple[str, int], *, wide: bool) -> bytes:
    """One end of a connection as the kernel writes it; empty where the table can't have it.

    A socket for IPv6 has an address of IPv4 in its mapped form; words are in the machine's order.
    """
    host = _plain(end[0])
    if host.version == 6 and not wide:
        return b""
    packed = _MAPPED + host.packed if wide and host.version == 4 else host.packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return ("".join(f"{word:08X}" for word in words) + f":{end[1]:04X}").encode("ascii")


def _plain(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def find(table: bytes, server: bytes, client: bytes) -> Row | None:
    """The row of a pair of addresses; None unless there is exactly one that can be read."""
    pattern = rb": " + re.escape(server) + rb" " + re.escape(client) + _REST
    found = {
        Row(int(state, 16), int(uid), int(inode))
        for state, uid, inode in re.findall(pattern, table)
    }
    return found.pop() if len(found) == 1 else None


# -- names


def named(uid: int) -> User:
    """A user with his name. Asks the system, which may take a while."""
    try:
        return User(uid, pwd.getpwuid(uid).pw_name)
    except (KeyError, OverflowError):
        return User(uid, "")


async def named_soon(uid: int) -> User:
    """A user with his name where the system tells it soon, else with his number alone."""
    try:
        async with asyncio.timeout(NAME_S):
            return await _names.run(partial(named, uid))
    except (TimeoutError, Unreachable):
        return User(uid, "")


def shown(user: User) -> str:
    """A user for a person."""
    return f"{user.name} (uid {user.uid})" if user.name else f"uid {user.uid}"


async def _uid(user: str | int) -> int:
    try:
        uid = user if isinstance(user, int) else await _number(user)
    except TimeoutError:
        raise ServerHung(
            f"this machine did not tell within {LOOK_UP_S:g} s who the user {user} is",
            "its directory service hangs; so it can't be proven who listens, and nothing was sent",
            "look after that service; or write the user's number into kluis.toml",
        ) from None
    except KeyError:
        raise UsageError(
            f"there is no user {user} on this machine",
            "so it can't be proven who listens; nothing was sent",
            "correct user in kluis.toml; a number is written without quotes",
        ) from None
    if uid == NOBODY:
        raise UsageError(
            f"the user {user} proves nothing",
            f"{NOBODY} is also what the kernel calls every user that it has no number for",
            "run the server as a user of its own, and declare that one",
        )
    return uid


async def _number(name: str) -> int:
    threads = _numbers.setdefault(name, Threads(MOST_LOOKUPS))
    async with asyncio.timeout(LOOK_UP_S):
        return (await _run(threads, partial(pwd.getpwnam, name))).pw_uid


async def _run(threads: Threads, call: Callable[[], T]) -> T:
    """What a call gives in one of these threads; waits until one is free."""
    while True:
        try:
            return await threads.run(call)
        except Unreachable:
            await asyncio.sleep(_BUSY_S)

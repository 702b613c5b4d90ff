"""Who listens on this machine: what the kernel's tables say of a connection, and what follows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import KluisError, ServerHung, ServerUnreachable, UsageError, WrongServer
from kluis.keyring.custody import Custody
from kluis.servers import listener
from kluis.servers.ceremony import nodes
from kluis.servers.client import ServerClient
from kluis.servers.declared import Listed, Server
from kluis.servers.listener import Row, User, find, named, owner, proving, shown
from kluis.servers.migration import snapshot
from kluis.servers.migration.driver import Nodes
from kluis.servers.tls import ServerTls
from tests.support.pretender import SEALED, Pretender, always

ME: Final = named(os.getuid())
OTHER: Final = os.getuid() + 1
ADDRESS: Final = "http://127.0.0.1:8200"
SHARE: Final = "ab" * 33
CUSTODY: Final = Custody("unseal", 3, tuple(bytes([n]) * 33 for n in range(5)))

# as Linux 6.18 shows them
SERVER, CLIENT = b"0100007F:8FE5", b"0100007F:CF5C"
HEADING = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
    b"   uid  timeout inode\n"
)
_TIMER = b"01 00000000:00000000 00:00000000 00000000"
ROW = b"   7: 0100007F:8FE5 0100007F:CF5C " + _TIMER + b" %5d %8d %d 1 0 20 4\n"
OURS = b"   8: 0100007F:CF5C 0100007F:8FE5 " + _TIMER + b"     0        0 9 2 0 20 4\n"


def test_the_row_of_exactly_this_pair_is_taken() -> None:
    assert find(HEADING + OURS + ROW % (998, 0, 4711), SERVER, CLIENT) == Row(1, 998, 4711)
    assert find(HEADING + ROW % (998, 0, 0), SERVER, CLIENT) == Row(1, 998, 0)
    assert find(HEADING + OURS, SERVER, CLIENT) is None
    assert find(HEADING + ROW % (998, 0, 4711), SERVER, CLIENT[:-1]) is None
    twice = HEADING + ROW % (998, 0, 4711) + OURS
    assert find(twice + ROW % (998, 0, 4711), SERVER, CLIENT) == Row(1, 998, 4711)
    assert find(twice + ROW % (0, 0, 4712), SERVER, CLIENT) is None  # whose, then?


@given(st.binary(max_size=400), st.integers(0, 150), st.binary(max_size=4))
def test_a_damaged_row_is_that_row_or_none(noise: bytes, at: int, put: bytes) -> None:
    row = ROW % (998, 0, 4711)
    assert find(noise, SERVER, CLIENT) is None
    for damaged in (row[:at] + put + row[at:], row[:at] + put + row[at + len(put) :], row[:at]):
        found = find(noise + b"\n" + damaged, SERVER, CLIENT)
        assert found is None or (0 <= found.state < 256 and 0 <= found.uid < 10**10)


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_an_address_is_written_as_the_kernel_does(address: object, port: int) -> None:
    wide = listener._written((str(address), port), wide=True)
    narrow = listener._written((str(address), port), wide=False)
    assert (len(wide), len(narrow)) in {(37, 13), (37, 0)}
    assert wide.endswith(f":{port:04X}".encode())


# -- real connections

LISTENERS: Final = [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
    (socket.AF_INET6, "::", "127.0.0.1"),
    (socket.AF_INET6, "::1", "::1"),
]


@contextlib.asynccontextmanager
async def connected(
    family: socket.AddressFamily, host: str, to: str
) -> AsyncIterator[tuple[socket.socket, asyncio.Transport]]:
    """A socket that listens and took nothing yet, and our connection to it."""
    with socket.socket(family) as there:
        there.bind((host, 0))
        there.listen()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, to, there.getsockname()[1])
        try:
            yield there, transport
        finally:
            transport.abort()


@pytest.mark.parametrize(("family", "host", "to"), LISTENERS)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_nothing_is_known_until_it_was_accepted_and_then_who_did(
    run: Callable[..., None], family: socket.AddressFamily, host: str, to: str
) -> None:
    async def play() -> None:
        async with connected(family, host, to) as (there, transport):
            asked = asyncio.create_task(owner(ADDRESS, transport))
            done, _ = await asyncio.wait([asked], timeout=0.05)
            assert not done
            with there.accept()[0]:
                assert await asked == ME.uid

    run(play())


def test_a_connection_that_ends_before_that_is_no_wrong_server() -> None:
    async def play() -> None:
        async with connected(*LISTENERS[0]) as (there, transport):
            asked = asyncio.create_task(owner(ADDRESS, transport))
            await asyncio.sleep(0)
            there.close()
            with pytest.raises(ServerUnreachable):
                await asked

    asyncio.run(play())


@pytest.mark.parametrize("what", ["missing", "empty", "folder", "short"])
def test_where_the_tables_do_not_tell_nobody_is_believed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "tcp"
    if what == "folder":
        table.mkdir()
    elif what == "empty":
        table.write_bytes(HEADING)
    if what == "short":
        monkeypatch.setattr(listener, "MOST_CHUNKS", 0)
    else:
        monkeypatch.setattr(listener, "TABLES", (table, tmp_path / "tcp6"))

    async def play() -> None:
        async with connected(*LISTENERS[0]) as (there, transport):
            with there.accept()[0], pytest.raises(WrongServer, match="can't be known who listens"):
                await owner(ADDRESS, transport)

    asyncio.run(play())


def test_a_kernel_without_ipv6_has_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "TABLES", (listener.TABLES[0], tmp_path / "none"))

    async def play() -> None:
        async with connected(*LISTENERS[0]) as (there, transport):
            asked = asyncio.create_task(owner(ADDRESS, transport))
            await asyncio.sleep(0.05)
            with there.accept()[0]:
                assert await asked == ME.uid

    asyncio.run(play())


def test_the_rule_is_for_plain_http_on_this_machine() -> None:
    assert proving(ADDRESS, "root")
    assert proving("http://[::1]:8200", 0)
    for address in ("https://127.0.0.1:8200", "http://vault.example:8200", "http://192.0.2.1:1"):
        assert proving(address, "root") is None
    assert proving(ADDRESS, None) is None


def test_names() -> None:
    assert shown(User(998, "openbao")) == "openbao (uid 998)"
    assert shown(named(2**31 + 12_345)) == f"uid {2**31 + 12_345}"


# -- all that sends shares or tokens

WRONG: Final = [
    (OTHER, WrongServer, "who listens at http"),
    ("no-such-user", UsageError, "there is no user no-such-user on this machine"),
    (listener.NOBODY, UsageError, "the user 65534 proves nothing"),
]


async def unseals(server: Server, address: str) -> None:
    async with ServerClient(address, tls=server.tls) as client:
        await client.unseal(SHARE)


async def initialises(server: Server, address: str) -> None:
    async with ServerClient(address, tls=server.tls) as client:
        await client.init(5, 3, kind="secret")


async def gives(server: Server, address: str) -> None:
    async with Nodes(server) as found:
        await found.give(address, CUSTODY, migrate=True)


async def surveys(server: Server, address: str) -> None:
    await nodes.survey(server)


async def downloads(server: Server, address: str) -> None:
    await snapshot.take(address, server.tls, "s.token", Path("never-written.snap"))


@pytest.mark.parametrize("does", [unseals, initialises, gives, surveys, downloads])
@pytest.mark.parametrize(("user", "kind", "words"), WRONG)
def test_nothing_is_asked_of_another_user(
    does: Callable[[Server, str], Coroutine[None, None, None]],
    user: str | int,
    kind: type[KluisError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with Pretender(always(SEALED)) as pretender:
        tls = ServerTls(user=user)
        server = Server("vault", Listed((pretender.address,)), tls)

        with pytest.raises(kind, match=words) as caught:
            asyncio.run(does(server, pretender.address))
        assert all((caught.value.means, caught.value.next_step))
    assert (pretender.asked, pretender.shares) == ([], [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("user", [ME.uid, ME.name])
def test_the_declared_user_is_asked(user: str | int) -> None:
    with Pretender(always(SEALED)) as pretender:
        server = Server("vault", Listed((pretender.address,)), ServerTls(user=user))
        assert asyncio.run(nodes.survey(server))[0].status is not None


# -- a machine that hangs, or has nothing left


@pytest.fixture
def hung_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory service that never answers about "stranger", nor about a number."""
    ended, real = threading.Event(), pwd.getpwnam

    def by_name(name: str) -> pwd.struct_passwd:
        if name == "stranger":
            ended.wait(60)
        return real(name)

    def by_number(uid: int) -> pwd.struct_passwd:
        ended.wait(60)
        raise KeyError(uid)

    with monkeypatch.context() as patch:
        patch.setattr(pwd, "getpwnam", by_name)
        patch.setattr(pwd, "getpwuid", by_number)
        patch.setattr(listener, "LOOK_UP_S", 0.2)
        patch.setattr(listener, "NAME_S", 0.05)
        yield
        ended.set()


async def asked(address: str, user: str | int) -> None:
    async with ServerClient(address, tls=ServerTls(user=user), timeout_s=30) as client:
        await client.seal_status()


@pytest.mark.usefixtures("hung_service")
def test_a_look_up_that_hangs_holds_up_no_other_server() -> None:
    async def play(address: str) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        hanging = [asyncio.create_task(asked(address, "stranger")) for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.wait_for(asked(address, ME.name), 20)
        for ended in await asyncio.gather(*hanging, return_exceptions=True):
            assert isinstance(ended, ServerHung), ended
            assert "who the user stranger is" in ended.seen
        await asyncio.wait_for(asked(address, ME.name), 20)

    with Pretender(always(SEALED)) as pretender:
        asyncio.run(play(pretender.address))


@pytest.mark.usefixtures("hung_service")
def test_who_is_refused_may_be_without_a_name() -> None:
    with Pretender(always(SEALED)) as pretender:
        with pytest.raises(WrongServer) as caught:
            asyncio.run(asyncio.wait_for(asked(pretender.address, OTHER), 20))
        assert caught.value.seen == f"who listens at {pretender.address} is uid {ME.uid}"
        assert pretender.asked == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_lack_of_files_or_memory_here_is_no_wrong_server(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(table: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(table))

    monkeypatch.setattr(listener, "_read", refuse)
    with Pretender(always(SEALED)) as pretender:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is looked at below
            asyncio.run(asked(pretender.address, ME.uid))
        assert (caught.value.errno, pretender.asked) == (number, [])

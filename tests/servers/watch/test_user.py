"""Over plain http shares go to the declared user only: a stock server, and who takes its port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pytest

from kluis.keyring.custody import Custody
from kluis.servers.listener import named
from kluis.servers.tls import ServerTls
from kluis.servers.watch.states import Alarm, Condition, NodeView
from tests.servers.watch.scene import Scene, kept, once, scene, server
from tests.support.bao import Bao

ME: Final = named(os.getuid())

# Takes connections, some of them late, answers nothing, and tells of each byte that came.
SQUATTER: Final = """
import os, socket, sys, threading, time
os.setgid(65534); os.setuid(65534)
there = socket.socket()
there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
there.bind(("127.0.0.1", int(sys.argv[1])))
there.listen()
print("listening", flush=True)
def read(taken):
    while came := taken.recv(65536):
        print("came", came, flush=True)
late = 0.0
while True:
    time.sleep(late)
    threading.Thread(target=read, args=(there.accept()[0],), daemon=True).start()
    print("taken", flush=True)
    late = 0.3 - late
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bao, Custody]]:
    """A server that listens at [::], reached at 127.0.0.1; and its shares."""
    bao = Bao(tmp_path_factory.mktemp("user") / "bao")
    text = bao.config_file.read_text()
    bao.config_file.write_text(text.replace(f'"127.0.0.1:{bao.port}"', f'"[::]:{bao.port}"'))
    with bao:
        made = bao.init(5, 3)
        yield bao, kept(made.shares)


@pytest.fixture
def sealed(stage: tuple[Bao, Custody]) -> tuple[Bao, Custody]:
    stage[0].kill9()
    stage[0].start()
    stage[0].wait_listening()
    return stage


def of(bao: Bao, custody: Custody, user: str | int) -> Scene:
    return scene(server([bao.address], ServerTls(user=user)), custody)


@pytest.mark.parametrize("user", [ME.uid, ME.name], ids=["number", "name"])
def test_the_declared_user_gets_its_shares(sealed: tuple[Bao, Custody], user: str | int) -> None:
    bao, custody = sealed

    async def play() -> None:
        one = of(bao, custody, user)
        async with one.watching():
            await one.becomes(Condition.UNSEALED)
            assert one.heard.count == 3

    asyncio.run(play())


@pytest.mark.parametrize(
    ("user", "seen", "means"),
    [
        (ME.uid + 1, f"is {ME.name} (uid {ME.uid})", "another process may have taken"),
        ("no-such-user", "there is no user no-such-user on this machine", "nothing was sent"),
    ],
)
def test_another_user_gets_no_share(
    sealed: tuple[Bao, Custody], user: str | int, seen: str, means: str
) -> None:
    bao, custody = sealed
    made, view = once(server([bao.address], ServerTls(user=user)), custody)
    (node,) = view.nodes.values()
    assert (node.condition, node.alarm) == (Condition.WRONG, Alarm.CERTIFICATE)
    assert seen in node.seen
    assert means in node.means
    assert node.next_step
    assert made.heard.count == 0
    status = bao.must("GET", "sys/seal-status")
    assert (status["progress"], status["sealed"]) == (0, True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_who_takes_the_port_of_a_server_that_is_down_gets_not_a_byte(
    sealed: tuple[Bao, Custody],
) -> None:
    bao, custody = sealed

    async def play() -> list[NodeView]:
        one = of(bao, custody, "root")
        async with one.watching():
            await one.becomes(Condition.UNSEALED)
            bao.kill9()
            await one.becomes(Condition.UNREACHABLE)
            with squatting(bao.port) as squatter:
                alarmed = await one.becomes(Condition.WRONG, Alarm.CERTIFICATE)
                lines = [await asyncio.to_thread(squatter.readline) for _ in range(4)]
                assert lines == [b"taken\n"] * 4  # more than one connection, and not a byte
                assert (await one.becomes(Condition.WRONG, Alarm.CERTIFICATE)).seen == alarmed.seen
            assert one.heard.count == 3
            bao.start()
            await one.becomes(Condition.UNSEALED)
            assert one.heard.count == 6
        return [node for _, node in one.heard.alarms]

    alarms = asyncio.run(play())
    assert {node.alarm for node in alarms} == {Alarm.CERTIFICATE}
    assert "(uid 65534)" in alarms[0].seen


@contextlib.contextmanager
def squatting(port: int) -> Iterator[IO[bytes]]:
    """Somebody else has the port; what he tells, line by line. Nothing but "taken" may come."""
    program = (sys.executable, "-c", SQUATTER, str(port))
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=Path("/")) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"listening\n"
            yield process.stdout
        finally:
            process.kill()
            rest = process.stdout.read()
    assert b"came" not in rest, rest

"""A server whose disk is full: it gets its shares, kluis says what is wrong, and it comes back.

Its files may not grow past a size (RLIMIT_FSIZE), so that a write fails as on a full disk. SIGXFSZ,
by which Python is not bothered, would end a Go program: the server inherits it blocked.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from kluis.servers.watch import judging
from kluis.servers.watch.states import Alarm, Condition
from tests.servers.watch.scene import Scene, kept, scene, server, until
from tests.support.bao import Bao, Initialised

XFSZ: Final = frozenset({signal.SIGXFSZ})
HEADS_BYTES: Final = 8192
"""A database of the server may only write what says where all the rest is (bbolt)."""


@dataclass
class Disk:
    """A server, initialised 3 of 5, and the room that it has."""

    bao: Bao
    made: Initialised

    def scene(self) -> Scene:
        return scene(server([self.bao.address]), kept(self.made.shares))

    def fill(self, most_bytes: int | None = None) -> None:
        """From now on no file grows; with ``most_bytes`` none is written past that."""
        databases = (self.bao.directory / "data").rglob("*.db")
        self._limit(max(map(_end, databases)) if most_bytes is None else most_bytes)

    def mend(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, most_bytes: int) -> None:
        hard = resource.prlimit(self.bao.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.bao.pid, resource.RLIMIT_FSIZE, (most_bytes, hard))

    def write(self) -> int:
        """Write a secret of some length; the status."""
        body = {"data": {"noise": os.urandom(4000).hex()}}
        return self.bao.request("POST", "secret/data/noise", body, self.made.root_token).status

    def is_intact(self) -> bool:
        return self.bao.kv_get(self.made.root_token, "it") == {"is": "here"}


def _end(path: Path) -> int:
    """Where the last written bytes of a sparse file end."""
    end = 0
    with path.open("rb") as file:
        while True:
            try:
                data = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: there are none after that
                return end
            end = os.lseek(file.fileno(), data, os.SEEK_HOLE)


def start(bao: Bao) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, XFSZ)
    try:
        bao.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, XFSZ)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    bao = Bao(tmp_path_factory.mktemp("full") / "bao")
    try:
        start(bao)
        bao.wait_listening()
        made = bao.init(5, 3)
        for share in made.shares[:3]:
            bao.unseal(share)
        bao.wait_active()
        bao.kv_put(made.root_token, "it", {"is": "here"})
        yield Disk(bao, made)
    finally:
        bao.kill9()


def test_it_is_unsealed_and_no_leader_until_there_is_room(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that can't write stays a standby for good, whose seal looks as well as ever."""
    monkeypatch.setattr(judging, "LEADERLESS_S", 1.0)

    async def play() -> None:
        one = disk.scene()
        async with one.watching():
            await until(lambda: one.node().active, one.node)
            disk.fill()
            await until(lambda: disk.write() == 500, disk.bao.log)
            node = await one.becomes(Condition.UNSEALED, Alarm.NO_LEADER)
            assert "disk may be full" in node.means
            assert one.watcher.views()["vault"].down_since_s is not None
            assert one.heard.count == 0

            disk.bao.kill9()
            start(disk.bao)
            disk.fill()
            await until(lambda: one.heard.count == 3, one.node)
            await one.becomes(Condition.UNSEALED, Alarm.NO_LEADER)
            (passing,) = (await disk.scene().watcher.once(30))["vault"].nodes.values()
            assert passing.alarm is Alarm.NO_LEADER  # one pass waits until that is clear
            assert one.heard.recoveries == []

            disk.mend()
            await until(lambda: one.node().active, one.node)
            assert one.node().alarm is None
            assert len(one.heard.recoveries) == 1
            assert one.heard.count == 3
        assert disk.is_intact()

    asyncio.run(play())


def test_where_nothing_can_be_written_attempts_are_few_and_an_alarm(disk: Disk) -> None:
    """As where a file system never overwrites: raft ends the server, and then fails each unseal."""

    async def play() -> None:
        one = disk.scene()
        async with one.watching():
            await until(lambda: one.node().active, one.node)
            disk.fill(HEADS_BYTES)
            assert disk.write() == 500
            await one.becomes(Condition.UNREACHABLE)
            assert disk.bao.wait_exit() > 0

            start(disk.bao)
            disk.fill(HEADS_BYTES)
            node = await one.becomes(Condition.UNSEALING, Alarm.SHARES)
            assert "disk" in node.next_step
            assert [count for _, _, count in one.heard.sendings] == [3, 3, 3, 3]
            assert disk.bao.must("GET", "sys/seal-status")["progress"] == 0

            disk.mend()
            one.watcher.wake()
            await until(lambda: one.node().active, one.node)
            assert one.node().alarm is None
            assert len(one.heard.recoveries) == 1
        assert disk.is_intact()

    asyncio.run(play())

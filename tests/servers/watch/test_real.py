"""The watch against a stock Shamir server with TLS: what it unseals, and what it lets be."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from kluis.keyring.custody import Shares
from kluis.servers.declared import Identity, Server
from kluis.servers.watch import judging
from kluis.servers.watch.states import Alarm, Condition, Hold
from tests.servers.watch.scene import Scene, kept, pinned, scene, server, until
from tests.support.bao import Bao, Initialised
from tests.support.tls import Authority, Issued


@dataclass
class Stage:
    """A server, initialised 3 of 5."""

    bao: Bao
    made: Initialised
    authority: Authority
    issued: Issued

    def server(
        self, identity: Identity | None = None, on_seal: Literal["hold", "unseal"] = "hold"
    ) -> Server:
        tls = pinned(self.authority, self.issued)
        return server([self.bao.address], tls, identity, on_seal=on_seal)

    def scene(
        self, identity: Identity | None = None, on_seal: Literal["hold", "unseal"] = "hold"
    ) -> Scene:
        return scene(self.server(identity, on_seal), kept(self.made.shares))

    def restart(self) -> None:
        """Sealed again."""
        self.bao.kill9()
        self.bao.start()
        self.bao.wait_listening()

    def seal_by_hand(self) -> None:
        self.bao.must("PUT", "sys/seal", {}, self.made.root_token)

    def progress(self) -> object:
        return self.bao.must("GET", "sys/seal-status")["progress"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    authority = Authority(folder / "ca")
    issued = authority.issue("vault", "127.0.0.1", "localhost")
    with Bao(folder / "bao", tls=issued) as bao:
        yield Stage(bao, bao.init(5, 3), authority, issued)


@pytest.fixture
def sealed(stage: Stage) -> Stage:
    stage.restart()
    return stage


def test_a_killed_server_is_unsealed_as_soon_as_it_listens(sealed: Stage) -> None:
    async def play() -> None:
        scene = sealed.scene()
        async with scene.watching():
            node = await scene.becomes(Condition.UNSEALED)
            assert node.version.startswith("2.")
            assert node.certificate_ends_s is not None
            sealed.bao.kill9()
            await scene.becomes(Condition.UNREACHABLE)
            view = scene.watcher.views()["vault"]
            assert view.down_since_s is not None
            recoveries = len(scene.heard.recoveries)
            sealed.bao.start()
            await scene.becomes(Condition.UNSEALED)
            await until(lambda: scene.node().active, scene.node)
            assert scene.watcher.views()["vault"].down_since_s is None
            assert [count for _, _, count in scene.heard.sendings] == [3, 3]
            assert len(scene.heard.recoveries) == recoveries + 1
            recovery = scene.heard.recoveries[-1]
            assert recovery.listening_s is not None
            assert 0 <= recovery.listening_s <= recovery.down_s
            assert not scene.heard.alarms

    asyncio.run(play())


@pytest.mark.parametrize("entered", [[0], [3], [0, 1], [4, 3]], ids=str)
def test_what_a_person_entered_already_counts(sealed: Stage, entered: list[int]) -> None:
    for number in entered:
        sealed.bao.unseal(sealed.made.shares[number])
    scene = sealed.scene()
    views = asyncio.run(scene.watcher.once(30))
    assert next(iter(views["vault"].nodes.values())).condition is Condition.UNSEALED
    known = sum(number < 3 for number in entered)  # a share that is there already changes nothing
    assert scene.heard.count == 3 - len(entered) + known
    assert not scene.heard.alarms


def test_a_wrong_share_of_a_person_is_overcome_without_a_reset(sealed: Stage) -> None:
    sealed.bao.unseal("ab" * 33)
    scene = sealed.scene()
    views = asyncio.run(scene.watcher.once(30))
    assert next(iter(views["vault"].nodes.values())).condition is Condition.UNSEALED
    assert [count for _, _, count in scene.heard.sendings] == [2, 3]


def test_shares_that_are_refused_are_an_alarm_and_not_sent_again(sealed: Stage) -> None:
    wrong = ["5a" * 32 + share[-2:] for share in sealed.made.shares]
    scene = Scene({"vault": sealed.server()}, kept(wrong))

    async def play() -> None:
        async with scene.watching():
            await scene.becomes(Condition.SEALED, Alarm.SHARES)
            await asyncio.sleep(0.5)
            assert scene.heard.count == 3
            scene.watcher.wake()
            await until(lambda: scene.heard.count == 6, scene.node)
            await asyncio.sleep(0.2)
            assert scene.heard.settlings == []  # it is one alarm, however often it is tried
            scene.custody = kept(sealed.made.shares)
            scene.watcher.wake("vault")
            await scene.becomes(Condition.UNSEALED)
            assert [server for server, _ in scene.heard.settlings] == ["vault"]

    asyncio.run(play())
    assert len(scene.heard.alarms) == 1


def test_after_a_rekey_that_was_interrupted_the_set_that_is_valid_unseals(sealed: Stage) -> None:
    right = kept(sealed.made.shares)
    void = tuple(bytes([7]) * 32 + share[-1:] for share in right.shares)
    for custody in (
        replace(right, next=Shares(3, void)),
        replace(right, shares=void, next=Shares(3, right.shares)),
        replace(right, threshold=2, shares=void[:2], next=Shares(3, right.shares)),
    ):
        sealed.restart()
        scene = Scene({"vault": sealed.server()}, custody)
        views = asyncio.run(scene.watcher.once(30))
        node = next(iter(views["vault"].nodes.values()))
        assert (node.condition, node.alarm) == (Condition.UNSEALED, None)


def test_a_seal_by_hand_is_let_be_until_a_restart(sealed: Stage) -> None:
    async def play() -> None:
        scene = sealed.scene()
        async with scene.watching():
            await scene.becomes(Condition.UNSEALED)
            await until(lambda: scene.node().active, scene.node)
            sealed.seal_by_hand()
            node = await scene.becomes(Condition.HELD)
            assert "while it ran" in node.seen
            scene.watcher.wake()  # a keyring was opened: no word of a person on this server
            await asyncio.sleep(0.5)
            assert (scene.node().condition, sealed.progress()) == (Condition.HELD, 0)
            sealed.restart()
            await scene.becomes(Condition.UNSEALED)

            await until(lambda: scene.node().active, scene.node)
            sealed.seal_by_hand()
            await scene.becomes(Condition.HELD)
            scene.watcher.wake("vault")  # this is one
            await scene.becomes(Condition.UNSEALED)

    asyncio.run(play())


def test_a_seal_by_hand_outlives_a_network_that_hangs(sealed: Stage) -> None:
    async def play() -> None:
        scene = sealed.scene()
        async with scene.watching():
            await scene.becomes(Condition.UNSEALED)
            await until(lambda: scene.node().active, scene.node)
            sealed.seal_by_hand()
            await scene.becomes(Condition.HELD)
            os.kill(sealed.bao.pid, signal.SIGSTOP)
            await scene.becomes(Condition.HUNG)
            os.kill(sealed.bao.pid, signal.SIGCONT)
            await scene.becomes(Condition.HELD)
            assert sealed.progress() == 0

    asyncio.run(play())


def test_where_it_is_declared_so_a_seal_by_hand_is_undone(sealed: Stage) -> None:
    async def play() -> None:
        scene = sealed.scene(on_seal="unseal")
        async with scene.watching():
            await scene.becomes(Condition.UNSEALED)
            await until(lambda: scene.node().active, scene.node)
            sealed.seal_by_hand()
            await until(lambda: scene.heard.count == 6, scene.node)
            await scene.becomes(Condition.UNSEALED)

    asyncio.run(play())


def test_a_held_server_stays_sealed_until_the_hold_is_over(sealed: Stage) -> None:
    async def play() -> None:
        scene = sealed.scene()
        scene.holds["vault"] = Hold(0.0)
        async with scene.watching():
            await scene.becomes(Condition.HELD)
            assert scene.watcher.views()["vault"].hold == Hold(0.0)
            await asyncio.sleep(0.5)
            assert (scene.heard.count, sealed.progress()) == (0, 0)
            scene.holds["vault"] = Hold(0.0, until_s=1.0)  # long over
            await scene.becomes(Condition.UNSEALED)
            assert scene.watcher.views()["vault"].hold is None

    asyncio.run(play())


def test_while_the_keyring_is_locked_there_is_an_alarm_and_a_wake_ends_it(sealed: Stage) -> None:
    async def play() -> None:
        scene = sealed.scene()
        custody, scene.custody = scene.custody, None
        async with scene.watching():
            node = await scene.becomes(Condition.SEALED, Alarm.LOCKED)
            assert node.seen == "homelab is locked"
            scene.custody = custody
            scene.watcher.wake()
            await scene.becomes(Condition.UNSEALED)

    asyncio.run(play())


def test_another_cluster_than_declared_gets_no_more_shares(sealed: Stage) -> None:
    identity = Identity(3, 5, "11111111-2222-4333-8444-555555555555")

    async def play() -> None:
        scene = sealed.scene(identity=identity)
        async with scene.watching():
            node = await scene.becomes(Condition.WRONG, Alarm.CLUSTER)
            assert "11111111-2222-4333-8444-555555555555" in node.seen
            sealed.restart()
            await until(lambda: "told" not in scene.node().seen, scene.node)
            await asyncio.sleep(0.5)
            node = await scene.becomes(Condition.WRONG, Alarm.CLUSTER)
            assert (scene.heard.count, sealed.progress()) == (3, 0)
            scene.watcher.take({"vault": sealed.server()})  # a person corrected kluis.toml
            await scene.becomes(Condition.UNSEALED)

    asyncio.run(play())


def test_the_cluster_that_was_kept_with_the_shares_counts_where_none_is_declared(
    sealed: Stage,
) -> None:
    custody = kept(sealed.made.shares, cluster_id="11111111-2222-4333-8444-555555555555")
    scene = Scene({"vault": sealed.server()}, custody)
    views = asyncio.run(scene.watcher.once(30))
    assert [node.alarm for node in views["vault"].nodes.values()] == [Alarm.CLUSTER]


def test_a_lost_disk_is_an_alarm_and_never_an_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "EMPTY_S", 0.2)
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("vault", "127.0.0.1")
    with Bao(tmp_path / "bao", tls=issued) as bao:
        made = bao.init(5, 3)
        bao.kill9()
        shutil.rmtree(bao.directory / "data")
        (bao.directory / "data").mkdir()
        bao.start()

        async def play() -> None:
            one = scene(server([bao.address], pinned(authority, issued)), kept(made.shares))
            async with one.watching():
                node = await one.becomes(Condition.UNINITIALISED, Alarm.LOST_DISK)
                assert "never initialised" in node.seen
                assert one.heard.count == 0

        asyncio.run(play())
        assert bao.must("GET", "sys/seal-status")["initialized"] is False

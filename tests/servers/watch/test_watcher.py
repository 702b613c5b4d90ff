"""Nodes that come and go, servers that are declared anew, and what is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kluis.errors import SettingsError
from kluis.keyring.custody import Custody
from kluis.servers.declared import Identity, KeyPath, Server
from kluis.servers.watch.states import Alarm, Condition, ServerView
from tests.servers.watch.scene import SHARES, Scene, scene, server, until
from tests.support.bao import free_port
from tests.support.pretender import CLUSTER_ID, SEALED, UNSEALED, Pretender, always, answer

CUSTODY = Custody("unseal", 3, SHARES)


@dataclass
class Moving:
    """A name server, or pods."""

    now: Sequence[str]
    lost: bool = False

    async def addresses(self) -> Sequence[str]:
        if self.lost:
            raise SettingsError("nobody knows", "the name server is away", "wait")
        return self.now


def moving(where: Moving) -> Server:
    return replace(server([]), discovery=where)


def test_a_node_that_moved_is_found_at_its_new_place() -> None:
    with Pretender(always(UNSEALED)) as old, Pretender(always(UNSEALED)) as new:
        where = Moving([old.address])
        one = scene(moving(where), CUSTODY)

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.UNSEALED)
                where.lost = True
                old.__exit__()
                await until(lambda: one.watcher.views()["vault"].seen != "", one.node)
                assert one.node().address == old.address  # the last known place holds
                where.lost, where.now = False, [new.address, new.address]
                await until(lambda: one.node().address == new.address, one.node)
                await one.becomes(Condition.UNSEALED)
                view = one.watcher.views()["vault"]
                assert (list(view.nodes), view.seen) == ([new.address], "")

        asyncio.run(play())
        old.__enter__()
    assert len(one.heard.recoveries) == 1


def test_a_server_without_a_node_is_down() -> None:
    where = Moving([])
    with Pretender(always(UNSEALED)) as new:
        one = scene(moving(where), CUSTODY)

        async def play() -> None:
            async with one.watching():
                await until(lambda: one.watcher.views()["vault"].down_since_s is not None, one.node)
                where.now = [new.address]
                await one.becomes(Condition.UNSEALED)
                assert len(one.heard.recoveries) == 1

        asyncio.run(play())


def test_another_configuration_is_taken_while_watching() -> None:
    with Pretender(always(UNSEALED)) as a, Pretender(always(SEALED)) as b:
        kept = replace(server([a.address]), name="kept")
        gone = replace(server([b.address]), name="gone", unseal=None)
        one = Scene({"kept": kept, "gone": gone}, CUSTODY)

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.UNSEALED, server="kept")
                since_s = one.node("kept").since_s
                await one.becomes(Condition.SEALED, server="gone")
                come = replace(gone, name="come")
                one.watcher.take({"kept": replace(kept, wake=("eso",)), "come": come})
                assert set(one.watcher.views()) == {"kept", "come"}
                await one.becomes(Condition.SEALED, server="come")
                assert one.node("kept").since_s == since_s  # what is known of it stays
                assert not b.shares
                one.watcher.wake("nobody")
                one.watcher.take({"come": replace(come, unseal=KeyPath("a", "b"))})
                await until(lambda: len(b.shares) > 0, one.node)

        asyncio.run(play())
        assert one.watcher.views()["come"].nodes  # what was known last


def test_the_old_place_gets_no_share_once_another_one_is_declared() -> None:
    with Pretender(always(UNSEALED)) as old:
        one = scene(server([old.address]), CUSTODY)

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.UNSEALED)
                old.says = always(SEALED)
                one.watcher.take({"vault": moving(Moving([], lost=True))})
                assert not one.watcher.views()["vault"].nodes
                await until(lambda: one.watcher.views()["vault"].seen != "", one.node)
                assert not one.watcher.views()["vault"].nodes

        asyncio.run(play())
        assert not old.shares


def test_one_that_is_known_as_foreign_is_so_when_it_comes_back_to_the_list() -> None:
    foreign = {**UNSEALED, "cluster_id": "11111111-0000-4000-8000-000000000000"}
    with Pretender(always(foreign)) as node:
        where = Moving([node.address])
        one = scene(replace(moving(where), identity=Identity(3, 5, CLUSTER_ID)), CUSTODY)

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.WRONG, Alarm.CLUSTER)
                node.says = always(SEALED)
                watched = one.watcher._watched["vault"]
                watched._use([])  # what a name server, or pods, say for a moment
                assert not one.watcher.views()["vault"].nodes
                watched._use([node.address])
                await one.becomes(Condition.WRONG, Alarm.CLUSTER)

        asyncio.run(play())
        assert not node.shares


def test_an_alarm_is_told_once_and_its_end_too() -> None:
    state = {**SEALED, "type": "transit"}
    with Pretender(always(state)) as pretender:
        one = scene(server([pretender.address]), CUSTODY)

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.WRONG, Alarm.SEAL)
                asked = len(pretender.asked)
                await until(lambda: len(pretender.asked) > asked + 1, one.node)
                state.update(UNSEALED)
                await one.becomes(Condition.UNSEALED)

        asyncio.run(play())
    assert [view.alarm for _, view in one.heard.alarms] == [Alarm.SEAL]
    assert one.heard.settlings == [("vault", pretender.address)]
    told = [view.condition for _, view in one.heard.conditions]
    assert told == [Condition.WRONG, Condition.UNSEALED]


def test_who_is_told_can_stop_nothing() -> None:
    with Pretender(always(UNSEALED)) as pretender:
        one = scene(server([pretender.address]), CUSTODY)
        one.heard.conditions = None  # type: ignore[assignment]

        async def play() -> None:
            async with one.watching():
                await one.becomes(Condition.UNSEALED)

        asyncio.run(play())


def test_before_the_start_and_with_nothing_to_watch() -> None:
    one = scene(server([f"http://127.0.0.1:{free_port()}"]), CUSTODY)
    assert one.watcher.views() == {"vault": ServerView("vault")}
    one.watcher.take({})
    assert one.watcher.views() == {}
    assert asyncio.run(one.watcher.once(5)) == {}


def test_a_server_that_is_away_does_not_hold_up_one_pass() -> None:
    one = scene(server([f"http://127.0.0.1:{free_port()}"]), CUSTODY)
    views = asyncio.run(one.watcher.once(30))
    assert [node.condition for node in views["vault"].nodes.values()] == [Condition.UNREACHABLE]
    assert views["vault"].down_since_s is not None


def test_one_that_ends_each_connection_is_told_of_and_not_asked_all_the_time() -> None:
    """A proxy that keeps no connection, say: no share can go over the one that was judged."""
    closing = answer(SEALED, headers="Connection: close\r\n")
    with Pretender(lambda method, path, body: closing) as pretender:

        async def play() -> float:
            one, began_s = scene(server([pretender.address]), CUSTODY), time.monotonic()
            async with one.watching():
                await one.becomes(Condition.UNSEALING, Alarm.SHARES)
            return time.monotonic() - began_s

        took_s = asyncio.run(play())
        assert not pretender.shares
        assert (
            len(pretender.asked) < 10 + 5 * took_s
        )  # once, and once more for an attempt, a second

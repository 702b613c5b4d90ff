"""Hooks after a recovery: each server's once, in order, none without an end, none in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from kluis.errors import KluisError, UsageError, WakeFailed
from kluis.wake import running
from kluis.wake.base import Recovered, Report, Woken
from kluis.wake.running import Waker
from tests.wake.hooks import AT, Gate, Programmed, recovery


def waker(*hooks: Programmed, told: list[Woken] | None = None) -> Waker:
    return Waker(
        {hook.name: hook for hook in hooks}, (lambda _: None) if told is None else told.append
    )


def names(outcomes: Sequence[Woken]) -> list[tuple[str, bool]]:
    return [(woken.hook, woken.ok) for woken in outcomes]


def test_hooks_run_in_the_order_of_the_server_and_each_is_told_at_once() -> None:
    async def play() -> None:
        told: list[Woken] = []
        first, second = Programmed("first"), Programmed("second")
        outcomes = await waker(first, second, told=told).wake_now(recovery("second", "first"))
        assert names(outcomes) == names(told) == [("second", True), ("first", True)]
        assert outcomes[0].words == ("done",)
        assert (outcomes[0].server, outcomes[0].kind) == ("bletchley", "programmed")

    asyncio.run(play())


def test_a_hook_that_fails_is_reported_and_the_next_one_runs_all_the_same() -> None:
    async def refuses(_: Recovered) -> Report:
        raise UsageError("seen", "means", "next")

    async def half(_: Recovered) -> Report:
        return Report(("3 of 4",), {"done": 3}, WakeFailed("1 of 4 was not"))

    async def breaks(_: Recovered) -> Report:
        raise ValueError("the token is hunter2")

    async def times_out(_: Recovered) -> Report:
        raise TimeoutError

    async def play() -> None:
        hooks = (
            Programmed("refuses", refuses),
            Programmed("half", half),
            Programmed("breaks", breaks),
            Programmed("late", times_out),
            Programmed("last"),
        )
        outcomes = await waker(*hooks).wake_now(recovery(*(hook.name for hook in hooks)))
        assert [woken.ok for woken in outcomes] == [False] * 4 + [True]
        assert outcomes[0].described()["failure"] == {
            "seen": "seen",
            "means": "means",
            "next": "next",
        }
        assert (outcomes[1].words, outcomes[1].counts) == (("3 of 4",), {"done": 3})
        failures = [woken.failure for woken in outcomes[:4]]
        assert all(isinstance(failure, KluisError) for failure in failures)
        assert "hunter2" not in str([woken.described() for woken in outcomes])

    asyncio.run(play())


def test_a_hook_that_never_ends_is_broken_off_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "GRACE_S", 0.05)

    async def deaf(_: Recovered) -> Report:
        while True:
            try:
                await asyncio.sleep(0.2)
                return Report(())
            except asyncio.CancelledError:
                continue

    async def play() -> None:
        stuck = Programmed("stuck", Gate(), timeout_s=0.05)
        ignoring = Programmed("ignoring", deaf, timeout_s=0.05)
        outcomes = await waker(stuck, ignoring, Programmed("next")).wake_now(
            recovery("stuck", "ignoring", "next")
        )
        assert names(outcomes) == [("stuck", False), ("ignoring", False), ("next", True)]
        assert isinstance(outcomes[0].failure, WakeFailed)
        assert stuck.under_way == 0
        await asyncio.sleep(0.3)  # the deaf one ends, and nobody minds

    asyncio.run(play())


def test_recoveries_while_hooks_run_are_one_more_round_and_the_last_one_counts() -> None:
    async def play() -> None:
        gate = Gate()
        hook = Programmed("hook", gate)
        work = waker(hook)
        first = work.recovered(recovery("hook"))
        await gate.reached.wait()
        later = [
            work.recovered(recovery("hook", at=AT + timedelta(seconds=n))) for n in range(1, 4)
        ]
        assert later[0] is later[1] is later[2]
        assert work.busy("bletchley")
        gate.open.set()
        assert names(await first) == names(await later[0]) == [("hook", True)]
        assert [one.at for one in hook.ran] == [AT, AT + timedelta(seconds=3)]
        assert hook.most_under_way == 1
        assert not work.busy("bletchley")

    asyncio.run(play())


def test_servers_do_not_wait_for_each_other() -> None:
    async def play() -> None:
        gate = Gate()
        work = waker(Programmed("slow", gate), Programmed("quick"))
        slow = work.recovered(recovery("slow", server="one"))
        await gate.reached.wait()
        assert names(await work.wake_now(recovery("quick", server="two"))) == [("quick", True)]
        gate.open.set()
        assert names(await slow) == [("slow", True)]
        assert {name: names(one) for name, one in work.history().items()} == {
            "one": [("slow", True)],
            "two": [("quick", True)],
        }

    asyncio.run(play())


def test_the_history_has_the_last_outcome_of_each_hook_that_the_server_still_has() -> None:
    fails = True

    async def mended(_: Recovered) -> Report:
        if fails:
            raise WakeFailed("not yet")
        return Report(("now",))

    async def play() -> None:
        nonlocal fails
        work = waker(Programmed("a", mended), Programmed("b"))
        assert work.history() == {}
        await work.wake_now(recovery("a", "b"))
        assert names(work.history()["bletchley"]) == [("a", False), ("b", True)]
        fails = False
        await work.wake_now(recovery("a", "b"))
        assert names(work.history()["bletchley"]) == [("a", True), ("b", True)]
        await work.wake_now(recovery("b"))
        assert names(work.history()["bletchley"]) == [("b", True)]

    asyncio.run(play())


def test_a_hook_that_was_taken_out_of_the_file_is_passed_over() -> None:
    async def play() -> None:
        work = waker(Programmed("a"), Programmed("b"))
        work.use({"b": Programmed("b")})
        assert names(await work.wake_now(recovery("a", "b"))) == [("b", True)]

    asyncio.run(play())


def test_who_stops_waiting_stops_nothing_else() -> None:
    async def play() -> None:
        gate = Gate()
        work = waker(Programmed("hook", gate))
        impatient = asyncio.create_task(work.wake_now(recovery("hook")))
        await gate.reached.wait()
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert work.busy("bletchley")
        again = work.recovered(recovery("hook"))
        gate.open.set()
        assert names(await again) == [("hook", True)]

    asyncio.run(play())


def test_closing_breaks_off_what_runs_and_nothing_runs_after_it() -> None:
    async def play() -> None:
        gate = Gate()
        hook = Programmed("hook", gate)
        work = waker(hook)
        waiting = asyncio.create_task(work.wake_now(recovery("hook")))
        await gate.reached.wait()
        following = work.recovered(recovery("hook"))
        await work.close()
        with pytest.raises(WakeFailed):
            await waiting
        assert following.cancelled()
        assert hook.under_way == 0
        assert not work.busy("bletchley")
        assert work.recovered(recovery("hook")).cancelled()
        with pytest.raises(WakeFailed):
            await work.wake_now(recovery("hook"))
        assert len(hook.ran) == 1

    asyncio.run(play())


def test_a_moment_is_told_in_utc_whatever_its_zone() -> None:
    from datetime import timezone

    there = AT.astimezone(timezone(timedelta(hours=5)))
    assert replace(recovery(), at=there).moment == "2026-05-04T03:02:01Z"

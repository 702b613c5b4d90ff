"""The base class: five classes of failure, a deadline that holds, and nothing foreign."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Mapping

import pytest

from kluis.anchors.threads import Threads
from kluis.errors import (
    AnchorError,
    Damaged,
    Misconfigured,
    Missing,
    Refused,
    TooLarge,
    Unreachable,
)
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.support.failing_anchor import (
    Answers,
    Behaviour,
    Down,
    FailingAnchor,
    Flapping,
    Hanging,
    HangingThread,
    IgnoresCancellation,
    IsDamaged,
    IsMissing,
    Raises,
    Refuses,
    Slow,
    Works,
    WrongAnswer,
)

CONTEXT = b"context"

OUTCOMES: tuple[tuple[Behaviour, type[AnchorError] | None], ...] = (
    (Works(), None),
    (Slow(0.01), None),
    (Down(), Unreachable),
    (Refuses(), Refused),
    (IsMissing(), Missing),
    (IsDamaged(), Damaged),
    (Hanging(), Unreachable),
    (Raises(TimeoutError()), Unreachable),
    (Raises(asyncio.CancelledError()), Unreachable),
    (Raises(TooLarge("too large")), Damaged),
    (Raises(ValueError("bad")), Misconfigured),
    (Raises(OSError(5, "input/output error")), Misconfigured),
    (Raises(MemoryError()), Misconfigured),
    (Raises(ExceptionGroup("several", [ValueError("bad")])), Misconfigured),
)


@pytest.mark.parametrize(("behaviour", "expected"), OUTCOMES, ids=repr)
def test_whatever_happens_has_one_of_five_classes(
    behaviour: Behaviour, expected: type[AnchorError] | None
) -> None:
    anchor = FailingAnchor(deadline_s=0.05 if isinstance(behaviour, Hanging) else 30.0)
    secret = Secret.random()
    sealed = asyncio.run(anchor.seal(secret, CONTEXT))
    anchor.now = behaviour
    if expected is None:
        assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret
        return
    with pytest.raises(AnchorError) as caught:
        asyncio.run(anchor.open(sealed, CONTEXT))
    assert type(caught.value) is expected


def test_a_timeout_of_the_anchor_itself_is_not_taken_for_the_deadline() -> None:
    anchor = FailingAnchor(now=Raises(TimeoutError("connect timed out")))
    with pytest.raises(Unreachable) as caught:
        asyncio.run(anchor.probe())
    assert "no answer within" not in caught.value.seen


def test_the_end_of_the_process_is_not_swallowed() -> None:
    with pytest.raises(SystemExit):
        asyncio.run(FailingAnchor(now=Raises(SystemExit(3))).probe())


def test_a_cancelled_caller_is_cancelled_also_when_the_anchor_ignores_it() -> None:
    async def cancel() -> None:
        end = asyncio.Event()
        anchor = FailingAnchor(now=IgnoresCancellation(end))
        asking = asyncio.create_task(anchor.probe())
        await anchor.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        end.set()

    asyncio.run(cancel())


def test_an_anchor_that_ignores_its_cancellation_is_left_behind_at_its_deadline() -> None:
    async def ask() -> None:
        end = asyncio.Event()
        anchor = FailingAnchor(now=IgnoresCancellation(end), deadline_s=0.02)
        async with asyncio.timeout(30):
            with pytest.raises(Unreachable):
                await anchor.probe()
        end.set()

    asyncio.run(ask())


def test_the_late_failure_of_a_call_that_was_left_behind_troubles_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class FailsLate(FailingAnchor):
        async def _probe(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("late") from None

    async def ask() -> None:
        with pytest.raises(Unreachable):
            await FailsLate(deadline_s=0.01).probe()

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(ask())
        gc.collect()
    assert not caplog.records


def test_the_deadline_of_one_call_cancels_it() -> None:
    anchor = FailingAnchor(now=Hanging(), deadline_s=0.01)
    with pytest.raises(Unreachable):
        asyncio.run(anchor.probe())
    assert anchor.cancelled == 1


@pytest.mark.parametrize(
    "sealed",
    [{"box": "A" * 20_000}, {"box": 0.5}, {"box": b"bytes"}, {"box": 2**60}, {"box": "\ud800"}],
    ids=["too large", "a fraction", "bytes", "too large a number", "a surrogate"],
)
def test_what_no_document_could_take_is_not_sealed(sealed: Mapping[str, JSON]) -> None:
    anchor = FailingAnchor(now=Answers(sealed))
    with pytest.raises((Damaged, Misconfigured)):
        asyncio.run(anchor.seal(Secret.random(), CONTEXT))


def test_a_wrong_answer_and_a_flapping_anchor_do_as_told() -> None:
    anchor = FailingAnchor()
    secret = Secret.random()
    sealed = asyncio.run(anchor.seal(secret, CONTEXT))
    anchor.now = WrongAnswer()
    assert asyncio.run(anchor.open(sealed, CONTEXT)) != secret
    anchor.now = Flapping(Down(), Works())
    with pytest.raises(Unreachable):
        asyncio.run(anchor.open(sealed, CONTEXT))
    assert asyncio.run(anchor.open(sealed, CONTEXT)) == secret
    assert anchor.calls == {"seal": 1, "open": 3}


def test_a_thread_that_hangs_is_left_behind_at_the_deadline() -> None:
    hanging = HangingThread()
    anchor = FailingAnchor(now=hanging, deadline_s=0.02)
    with pytest.raises(Unreachable):
        asyncio.run(anchor.probe())  # also the end of the loop waits for no thread
    hanging.end.set()


def test_a_thread_that_ends_after_its_loop_troubles_nobody() -> None:
    hanging = HangingThread()
    anchor = FailingAnchor(now=hanging, deadline_s=0.01)
    before = set(threading.enumerate())
    with pytest.raises(Unreachable):
        asyncio.run(anchor.probe())
    left = [thread for thread in threading.enumerate() if thread not in before]
    hanging.end.set()
    for thread in left:
        thread.join(30)
        assert not thread.is_alive()


def test_threads_that_hang_are_bounded_and_their_places_come_back() -> None:
    async def fill() -> None:
        threads, end = Threads(most=2), threading.Event()
        hanging = [asyncio.create_task(threads.run(end.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unreachable, match="2 earlier calls hang"):
            await threads.run(lambda: None)
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
        with pytest.raises(Unreachable):  # a cancelled call still has its thread
            await threads.run(lambda: None)
        end.set()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await threads.run(lambda: "free") == "free"
                    break
                except Unreachable:
                    await asyncio.sleep(0)

    asyncio.run(fill())


def test_what_a_call_in_a_thread_raises_reaches_who_called() -> None:
    def burst() -> None:
        raise LookupError("from a thread")

    with pytest.raises(LookupError):
        asyncio.run(Threads().run(burst))


def test_a_system_without_threads_left_is_unreachable_not_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def starve() -> None:
        threads = Threads(most=1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_thread)
            with pytest.raises(Unreachable, match="no thread could be started"):
                await threads.run(lambda: None)
        await threads.run(lambda: None)  # its place came back

    asyncio.run(starve())


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")

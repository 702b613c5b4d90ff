"""Runs the hooks of servers that came back: once per recovery, in order, none without an end.

Servers do not wait for each other. A server that comes back again while its hooks run has them run
once more afterwards, however often that happens meanwhile: the last recovery counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from kluis.errors import KluisError, WakeFailed
from kluis.wake.base import Hook, Recovered, Report, Woken

GRACE_S: Final = 5.0
"""What a hook may take beyond its deadline, to report, or to clean up after it was broken off."""

Outcomes = tuple[Woken, ...]
Told = Callable[[Woken], None]


@dataclass(slots=True)
class _Line:
    """One server: the recovery that waits for its turn, and what its callers wait for."""

    waiting: tuple[Recovered, asyncio.Future[Outcomes]] | None = None
    working: asyncio.Task[None] | None = None
    last: dict[str, Woken] = field(default_factory=dict)


class Waker:
    """The hooks of all servers, by the names that ``Server.wake`` has.

    ``told`` gets every outcome at once, for a log or a metric, and raises nothing.
    """

    def __init__(self, hooks: Mapping[str, Hook], told: Told = lambda _: None) -> None:
        self._hooks = dict(hooks)
        self._told = told
        self._lines: dict[str, _Line] = {}
        self._closed = False

    def use(self, hooks: Mapping[str, Hook]) -> None:
        """Take other hooks from the next one on; what runs goes on."""
        self._hooks = dict(hooks)

    def recovered(self, recovery: Recovered) -> asyncio.Future[Outcomes]:
        """A server is back: see to its hooks, and return at once. The future has what came of it.

        Cancelling the future cancels nothing else.
        """
        line = self._lines.setdefault(recovery.server.name, _Line())
        if line.waiting is None or line.waiting[1].done():
            outcome: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        else:
            outcome = line.waiting[1]
        if self._closed:
            outcome.cancel()
            return outcome
        line.waiting = recovery, outcome
        if line.working is None:
            line.working = asyncio.create_task(self._work(line))
        return outcome

    async def wake_now(self, recovery: Recovered) -> Outcomes:
        """The same at a person's word, and waited for: all hooks of the server, once.

        Raises WakeFailed when kluis ends before they did.
        """
        outcome = self.recovered(recovery)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            if not outcome.cancelled():  # then it is who called that was cancelled
                raise
            raise WakeFailed(
                f"the hooks of {recovery.server.name} were broken off",
                "kluis is ending",
                "start it again, and wake the server again",
            ) from None

    def busy(self, server: str) -> bool:
        """Whether hooks of a server run, or wait for their turn."""
        line = self._lines.get(server)
        return line is not None and line.working is not None

    def history(self) -> Mapping[str, Outcomes]:
        """What came last of every hook, by server, in the order in which they ran."""
        return {name: tuple(line.last.values()) for name, line in self._lines.items() if line.last}

    async def close(self) -> None:
        """Break off what runs, and wait until it is gone. Nothing runs after it."""
        self._closed = True
        working = [line.working for line in self._lines.values() if line.working is not None]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    async def _work(self, line: _Line) -> None:
        outcome: asyncio.Future[Outcomes] | None = None
        try:
            while line.waiting is not None:
                (recovery, outcome), line.waiting = line.waiting, None
                outcomes = await self._round(line, recovery)
                if not outcome.done():
                    outcome.set_result(outcomes)
        finally:
            line.working = None
            for left in (outcome, line.waiting and line.waiting[1]):
                if left is not None:
                    left.cancel()  # nothing, where it has its result
            line.waiting = None

    async def _round(self, line: _Line, recovery: Recovered) -> Outcomes:
        """All hooks of a server, one after the other."""
        outcomes: list[Woken] = []
        line.last = {name: line.last[name] for name in recovery.server.wake if name in line.last}
        for name in recovery.server.wake:
            hook = self._hooks.get(name)
            if hook is None:  # it was taken out of the file, and the server was read before
                continue
            woken = await _run(hook, recovery)
            line.last[name] = woken
            outcomes.append(woken)
            self._told(woken)
        return tuple(outcomes)


async def _run(hook: Hook, recovery: Recovered) -> Woken:
    """What comes of one hook, whatever it does."""
    now = asyncio.get_running_loop().time
    started = now()
    report = await _report(hook, recovery)
    return Woken(
        server=recovery.server.name,
        hook=hook.name,
        kind=hook.kind,
        ok=report.failure is None,
        at=datetime.now(UTC),
        seconds=now() - started,
        words=report.words,
        counts=report.counts,
        failure=report.failure,
    )


async def _report(hook: Hook, recovery: Recovered) -> Report:
    task = asyncio.create_task(hook.run(recovery))
    try:
        done, _ = await asyncio.wait({task}, timeout=hook.timeout_s + GRACE_S)
    finally:
        task.cancel()
        task.add_done_callback(_take_note)
        if not task.done():  # let it clean up, but not for ever
            await asyncio.wait({task}, timeout=GRACE_S)
    if not done:
        return Report((), failure=overdue(hook))
    return _outcome(hook, task)


def _outcome(hook: Hook, task: asyncio.Task[Report]) -> Report:
    try:
        return task.result()
    except KluisError as error:
        return Report((), failure=error)
    except (TimeoutError, asyncio.CancelledError):  # the hook's own
        return Report((), failure=overdue(hook))
    except Exception as error:  # noqa: BLE001 - its text, which may carry a secret, ends here
        unknown = WakeFailed(
            f"the hook {hook.name} failed: unexpected {type(error).__name__}",
            f"a hook of kind {hook.kind} met a case it does not know",
            f"check [wake.{hook.name}], and report this",
        )
        return Report((), failure=unknown)


def overdue(hook: Hook) -> WakeFailed:
    """The error for a hook that was not done in time."""
    return WakeFailed(
        f"the hook {hook.name} was not done within {hook.timeout_s:g} s",
        "what it asks hangs, or needs longer",
        f"see what it waits for, or raise timeout_s in [wake.{hook.name}]",
    )


def _take_note(task: asyncio.Task[Report]) -> None:
    if not task.cancelled():
        task.exception()  # of one that was left behind nobody else asks it

"""The engine of ``kluis run``: start a server, hand it its seal, keep it running.

- Signals for kluis are passed on to the server. It runs in a process group of its own, so that
  a terminal's ^C reaches it once, through kluis, and not twice.
- A server that dies is started again, within a ``RestartLimit``. One that ends with 0, or after
  SIGTERM, SIGINT or SIGQUIT was passed on, is not. Its exit code becomes kluis's own, and 128 + N
  after a death by signal N.
- What a dead server leaves in its process group (plugins, the server below a shell) is killed:
  it would hold the storage's lock against the next one.
- When kluis itself is killed, the server gets SIGTERM: a server that nobody guards would hold
  its port and its storage against the kluis that a service manager starts next. The kernel does
  this (PR_SET_PDEATHSIG) when the thread that called ``supervise`` ends; it does not when the
  command changes its user or gains file capabilities, nor for what a shell in between started.
  systemd and a container's PID namespace end the server in these cases too.
- As PID 1, or as a child subreaper, kluis reaps every orphan that it inherits; nothing else in
  such a process may then wait for children of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kluis.errors import KluisError
from kluis.servers.child import Child
from kluis.servers.handoff import Handoff
from kluis.servers.notify import SOCKET_VARIABLE, Notifier

Log = Callable[[str, Mapping[str, object]], None]

PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGQUIT,
    signal.SIGWINCH,
)
ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})

# How long a server may take to end, when supervise itself is cancelled, before it is killed.
GRACE_S: Final = 10.0

_PR_GET_CHILD_SUBREAPER: Final = 37  # prctl(2)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


@dataclass(frozen=True)
class RestartLimit:
    """At most ``restarts`` within ``window_s`` seconds; one more death is final.

    The first is done at once. The next waits ``first_delay_s``, and each further one twice as
    long, up to ``longest_delay_s``.
    """

    restarts: int = 5
    window_s: float = 60.0
    first_delay_s: float = 0.1
    longest_delay_s: float = 5.0

    def delay_s(self, earlier: Sequence[float], now: float) -> float | None:
        """How long to wait before the next restart, given when ``earlier`` ones were.

        None when there were too many.
        """
        recent = sum(1 for when in earlier if when > now - self.window_s)
        if recent >= self.restarts:
            return None
        if recent == 0:
            return 0.0
        return float(min(self.first_delay_s * 2 ** min(recent - 1, 30), self.longest_delay_s))


async def supervise(
    argv: Sequence[str],
    handoff: Handoff,
    *,
    limit: RestartLimit | None = None,
    ready: Callable[[], Awaitable[None]] | None = None,
    log: Log,
) -> int:
    """Run ``argv`` with ``handoff`` until it ends for good; its exit code, as a shell gives it.

    ``ready`` returns when the server does its work (see ``ServerClient.wait_active``); the
    service manager is told then. It runs anew after each restart. ``log`` gets the name of an
    event and its fields. Must run in the main thread. When cancelled, it ends the server first.

    Raises:
        UsageError: the command does not exist or can't be executed.
    """
    supervisor = _Supervisor(argv, handoff, limit or RestartLimit(), ready, log)
    with supervisor.signals_passed_on():
        return await supervisor.run()


class _Supervisor:
    def __init__(
        self,
        argv: Sequence[str],
        handoff: Handoff,
        limit: RestartLimit,
        ready: Callable[[], Awaitable[None]] | None,
        log: Log,
    ) -> None:
        self._argv = argv
        self._environment = handoff.without(SOCKET_VARIABLE).child_environment(os.environ)
        self._inherited_fds = handoff.inherited_fds
        self._limit = limit
        self._ready = ready
        self._log = log
        self._notifier = Notifier.from_environment(os.environ)
        self._child: Child | None = None
        self._told_to_end = asyncio.Event()

    async def run(self) -> int:
        restarts: list[float] = []
        while True:
            code = await self._live()
            if code == 0 or self._told_to_end.is_set():
                return code
            now = asyncio.get_running_loop().time()
            delay_s = self._limit.delay_s(restarts, now)
            if delay_s is None:
                self._log("server.given-up", {"code": code, "restarts": len(restarts)})
                self._notifier.status(f"the server died with {code} too often; given up")
                return code
            self._log("server.restarting", {"code": code, "delay_s": delay_s})
            self._notifier.status(f"the server died with {code}; starting it again")
            if await self._told_to_end_within(delay_s):
                return code
            restarts.append(now + delay_s)

    async def _live(self) -> int:
        """One life of the server, from its start to its exit code."""
        self._child = child = Child(self._argv, self._environment, self._inherited_fds)
        self._log("server.started", {"command": self._argv[0], "pid": child.pid})
        announcement = asyncio.create_task(self._announce(), name="readiness")
        try:
            code = await asyncio.shield(child.exited)
        finally:
            announcement.cancel()
            await asyncio.wait((announcement,))
            await child.end(GRACE_S)  # ended already, unless this task is being cancelled
            self._child = None
        self._log("server.ended", {"pid": child.pid, "code": code})
        return code

    async def _announce(self) -> None:
        if self._ready is None:
            return
        try:
            await self._ready()
        except KluisError as error:
            self._log("server.not-ready", {"seen": error.seen, "next": error.next_step})
            return
        self._log("server.ready", {})
        self._notifier.ready("the server is active")

    async def _told_to_end_within(self, delay_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._told_to_end.wait()
        return self._told_to_end.is_set()

    @contextlib.contextmanager
    def signals_passed_on(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in PASSED_ON:
            loop.add_signal_handler(number, self._pass_on, number)
        try:
            with (
                _on_child_end(self._reap_orphans)
                if _inherits_orphans()
                else contextlib.nullcontext()
            ):
                yield
        finally:
            for number in PASSED_ON:
                loop.remove_signal_handler(number)

    def _pass_on(self, number: signal.Signals) -> None:
        self._log("signal.passed-on", {"signal": number.name})
        if number in ENDING:
            self._told_to_end.set()
            self._notifier.stopping()
        if self._child is not None:
            self._child.send(number)

    def _reap_orphans(self) -> None:
        """Reap all that ended; what is the server's own exit goes the server's way."""
        while (pid := _ended_child()) is not None:
            if self._child is not None and pid == self._child.pid:
                self._child.reap()
            else:
                os.waitpid(pid, 0)
                self._log("orphan.reaped", {"pid": pid})


@contextlib.contextmanager
def _on_child_end(callback: Callable[[], None]) -> Iterator[None]:
    """Call back in the loop after each SIGCHLD. uvloop takes no handler for it, Python does."""
    loop = asyncio.get_running_loop()

    def wake(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(callback)

    before = signal.signal(signal.SIGCHLD, wake)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _inherits_orphans() -> bool:
    subreaper = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(subreaper))
    return os.getpid() == 1 or subreaper.value == 1


def _ended_child() -> int | None:
    """A child that ended and was not reaped; it stays so."""
    try:
        seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if seen is None else seen.si_pid

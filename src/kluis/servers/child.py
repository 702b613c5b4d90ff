"""One process that ``kluis run`` started: a clean start, signals, and its one exit code.

Plain ``subprocess.Popen`` and a pidfd: alike in asyncio and uvloop, and nobody but this module
reaps the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from typing import Final

from kluis.errors import UsageError

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Child:
    """One process of the command. ``exited`` gets its exit code, as a shell gives it."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], inherited_fds: Sequence[int]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._process = _start(argv, environment, inherited_fds)
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self.reap)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def reap(self) -> None:
        """Called once the process has ended: take its exit code, and end its group."""
        if self.exited.done():
            return
        # Not yet reaped, so its number is still its own, and so is the group of that number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.exited.set_result(code if code >= 0 else 128 - code)

    async def end(self, grace_s: float) -> None:
        """End it if it still runs: SIGTERM, and SIGKILL after ``grace_s``."""
        self.send(signal.SIGTERM)
        await asyncio.wait((self.exited,), timeout=grace_s)
        self.send(signal.SIGKILL)
        await asyncio.wait((self.exited,))


def _start(
    argv: Sequence[str], environment: Mapping[str, str], inherited_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    if not argv:
        raise UsageError("no command was given", "", "add one: kluis run … -- bao server …")
    parent = os.getpid()
    try:
        with warnings.catch_warnings():
            # Python warns of fork in a process with threads; _in_child takes no lock they may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            return subprocess.Popen(
                argv,
                env=environment,
                pass_fds=inherited_fds,
                process_group=0,
                preexec_fn=lambda: _in_child(parent),  # noqa: PLW1509 - see above
            )
    except FileNotFoundError:
        raise UsageError(
            f"the command {argv[0]} was not found",
            "there is no such program on the PATH, or its interpreter is missing",
            "check what stands after --",
        ) from None
    except OSError as error:
        raise UsageError(
            f"the command {argv[0]} can't be executed: {error.strerror}",
            "it is not a program, or this user may not run it",
            "check its permissions (chmod +x), and what stands after --",
        ) from None


def _in_child(parent: int) -> None:
    """Runs between fork and exec: nothing of kluis's signal handling may reach the server."""
    for number in range(1, signal.SIGRTMIN):
        with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP and libc's own
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # killed before the line above
        os._exit(128 + signal.SIGTERM)

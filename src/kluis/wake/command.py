"""A hook that runs a program: without a shell, in a process group of its own, and with an end.

Of kluis's environment it gets PATH, HOME and LANG only, and nothing that was secret. What it
leaves running in its group is ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from kluis.errors import WakeFailed
from kluis.wake.base import Recovered, Report, plain

KEPT_BYTES: Final = 4096
PIPE_BYTES: Final = 1 << 20  # all that a pipe can hold
REAP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments; it succeeds by ending with 0."""

    kind: ClassVar[str] = "command"

    name: str
    argv: tuple[str, ...]
    timeout_s: float = 60.0

    async def run(self, recovery: Recovered) -> Report:
        """See Hook. Raises WakeFailed."""
        program = self._start(_environment(recovery))
        try:
            async with asyncio.timeout(self.timeout_s):
                code = await asyncio.shield(program.ended)
        except TimeoutError:
            raise WakeFailed(
                f"{self._program} did not end within {self.timeout_s:g} s",
                program.last_line() or "it printed nothing",
                f"see what it waits for, or raise timeout_s in [wake.{self.name}]",
            ) from None
        finally:
            await program.end()
        line = program.last_line()
        if code != 0:
            raise WakeFailed(
                f"{self._program} ended with {_how(code)}",
                line or "it printed nothing",
                "run it by hand, with KLUIS_SERVER and KLUIS_RECOVERED_AT in its environment",
            )
        return Report((f"{self._program}: {line}" if line else f"{self._program} ended well",))

    def _start(self, environment: Mapping[str, str]) -> _Program:
        try:
            return _Program(self.argv, environment)
        except FileNotFoundError:
            seen = f"the command {self._program} was not found"
            means = "there is no such program on the PATH, or its interpreter is missing"
        except (OSError, ValueError) as error:
            seen = f"the command {self._program} could not be run"
            means = getattr(error, "strerror", None) or "its name or an argument has a null byte"
        raise WakeFailed(seen, means, f"check command in [wake.{self.name}]")

    @property
    def _program(self) -> str:
        """Its name alone: arguments are for the program, not for a log."""
        return plain(Path(self.argv[0]).name)


class _Program:
    """One run. ``ended`` gets its exit code, or minus the signal that ended it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._said = b""
        self._output, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(writing, True)  # the program's own end is as any other's
            self._process = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(writing)
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
            self._loop.add_reader(self._pidfd, self._reap)
            self._loop.add_reader(self._output, self._listen)
        except BaseException:  # nobody would see it end
            self._kill()
            self._process.wait()
            self._close()
            raise

    def last_line(self) -> str:
        """The last line that it printed and that says something."""
        lines = self._said.decode("utf-8", "replace").splitlines()
        return next((said for line in reversed(lines) if (said := plain(line))), "")

    async def end(self) -> None:
        """End what still runs of it. A program that not even SIGKILL ends is left behind."""
        self._kill()
        await asyncio.wait({self.ended}, timeout=REAP_S)

    def _listen(self) -> None:
        if not self._take():
            self._loop.remove_reader(self._output)

    def _take(self) -> bool:
        """Take what it printed meanwhile. False: nobody will print there any more."""
        try:
            said = os.read(self._output, PIPE_BYTES)
        except BlockingIOError:
            return True
        self._said = (self._said + said)[-KEPT_BYTES:]
        return bool(said)

    def _reap(self) -> None:
        """Called once it ended: take its exit code, and end its group."""
        # Not yet reaped, so its number is still its own, and so is the group of that number.
        self._kill()
        code = self._process.wait()
        self._take()
        self._close()
        self.ended.set_result(code)

    def _close(self) -> None:
        for descriptor in (self._pidfd, self._output):
            if descriptor != -1:
                self._loop.remove_reader(descriptor)
                os.close(descriptor)

    def _kill(self) -> None:
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _environment(recovery: Recovered) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "KLUIS_SERVER": recovery.server.name,
        "KLUIS_RECOVERED_AT": recovery.moment,
    }


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"

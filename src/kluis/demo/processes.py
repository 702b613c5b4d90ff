"""The processes of the demonstration. None of them outlives it.

Each is the head of its own process group, so that a terminal's ^C reaches the demonstration
alone. Leaving ``async with Processes()`` kills what is left. When the demonstration itself is
killed with SIGKILL, the kernel kills them (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import warnings
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kluis.errors import ServiceError, UsageError

COMMAND_S: Final = 30.0  # a kluis command takes about 0.3 s
GRACE_S: Final = 1.0  # kluis takes 0.1 s; a server's data is thrown away anyway

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_prctl = ctypes.CDLL(None, use_errno=True).prctl

# What would lead kluis or a server elsewhere than to the demonstration's own files and ports.
_LEADS_ASTRAY: Final = ("BAO_", "VAULT_", "TRANSIT_", "KLUIS_", "NOTIFY_SOCKET")


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended. What it printed may hold shares and tokens, so it does not print."""

    code: int
    output: bytes = field(repr=False)
    errors: bytes = field(repr=False)

    @property
    def first_error(self) -> str:
        """The first line of what it said on standard error."""
        return next(iter(self.errors.decode("utf-8", "replace").splitlines()), "nothing")


class Processes:
    """Starts processes, and sees to it that they end."""

    def __init__(self) -> None:
        self._started: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """SIGTERM, so that kluis removes its socket; SIGKILL for what does not listen."""
        running = [process for process in self._started if process.returncode is None]
        for process in running:
            _signal(process, signal.SIGTERM)
        ends = [asyncio.create_task(process.wait()) for process in running]
        if ends:
            await asyncio.wait(ends, timeout=GRACE_S)
        for process in running:
            _signal(process, signal.SIGKILL)
        await asyncio.gather(*ends)

    async def start(
        self, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a service; its output is added to ``log``. Raises UsageError."""
        with log.open("ab") as output:
            return await self._start(argv, environment, DEVNULL, output.fileno(), STDOUT)

    async def run(self, argv: Sequence[str], line: str = "") -> Ended:
        """Run a command to its end, with one line on its standard input.

        Raises ServiceError when it takes longer than COMMAND_S.
        """
        process = await self._start(argv, None, PIPE, PIPE, PIPE)
        try:
            async with asyncio.timeout(COMMAND_S):
                output, errors = await process.communicate(f"{line}\n".encode() if line else b"")
        except TimeoutError:
            raise ServiceError(
                f"{' '.join(argv[3:])} did not end within {COMMAND_S:g} s", "it hangs", "try again"
            ) from None
        return Ended(process.returncode or 0, output, errors)

    async def _start(
        self,
        argv: Sequence[str],
        more: Mapping[str, str] | None,
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> Process:
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                # Python warns of fork beside threads; _in_child takes no lock they may hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    env={**clean_environment(), **(more or {})},
                    process_group=0,
                    preexec_fn=lambda: _in_child(parent),
                )
        except OSError as error:
            raise UsageError(
                f"{argv[0]} can't be executed: {error.strerror}",
                "it is not a program, or this user may not run it",
                "check its permissions (chmod +x)",
            ) from None
        self._started.append(process)
        return process


def kluis_argv(*arguments: str) -> list[str]:
    """This very kluis, run by this very interpreter; what lies in the present folder is not it."""
    return [sys.executable, "-P", "-m", "kluis", *arguments]


def clean_environment() -> dict[str, str]:
    """The environment without what a server or kluis would obey."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_LEADS_ASTRAY)}


def _signal(process: Process, number: signal.Signals) -> None:
    """To the whole group; a process that was reaped has given its number back."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _in_child(parent: int) -> None:
    """Runs between fork and exec."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # killed before the line above
        os._exit(128 + signal.SIGKILL)

"""Programs that a benchmark starts: their ends, their memory, their processor time, their ports.

Everything lies in a directory of mode 0700 under the system's temporary one, and listens on
loopback only. Nothing outlives the benchmark: what still runs at its end is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

# Below the range from which the kernel takes ports for outgoing connections.
PORTS: Final = range(20_000, 32_000)
DEADLINE_S: Final = 30.0
_running: set[subprocess.Popen[bytes]] = set()
_folders: set[Path] = set()


class BenchFailed(Exception):
    """A benchmark could not be carried out; says what was seen and what to do."""


class Program:
    """One started program. Its output goes to ``log``."""

    def __init__(
        self, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment() | dict(environment or {}),
                start_new_session=True,
            )
        _running.add(self._process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise BenchFailed with the end of its log when it has ended."""
        if self._process.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise BenchFailed(f"{self._log.stem} ended with {self._process.returncode}:\n{tail}")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends it, and wait until it is gone."""
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        _running.discard(self._process)

    def rss_mib(self) -> float:
        """Resident memory now, in MiB."""
        return self._memory("VmRSS")

    def peak_rss_mib(self) -> float:
        """The highest resident memory since its start, in MiB."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
        raise BenchFailed(f"the system does not tell {name} of a process")

    def cpu_s(self) -> float:
        """Processor time that it used so far, in seconds, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@atexit.register
def _leave_nothing() -> None:
    for process in list(_running):
        process.kill()
        process.wait()
    for folder in list(_folders):
        shutil.rmtree(folder, ignore_errors=True)


def end_on_sigterm() -> None:
    """Let SIGTERM end the benchmark as Ctrl-C does, so that it cleans up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A directory of mode 0700 for one benchmark; removed at its end, with all its programs."""
    folder = Path(tempfile.mkdtemp(prefix="kluis-bench-"))
    _folders.add(folder)
    before = set(_running)
    try:
        yield folder
    finally:
        for process in _running - before:
            process.kill()
            process.wait()
            _running.discard(process)
        shutil.rmtree(folder, ignore_errors=True)
        _folders.discard(folder)


def clean_environment() -> dict[str, str]:
    """This environment without what would reach into a server, or into kluis."""
    prefixes = ("BAO_", "VAULT_", "TRANSIT_", "KLUIS_", "NOTIFY_SOCKET")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def free_port() -> int:
    """A loopback port that nobody listens on."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchFailed("no free loopback port was found in 200 tries")


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Poll a condition each 10 ms. Raises BenchFailed after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise BenchFailed(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)


def raise_open_files_limit(needed: int) -> None:
    """Let this process, and those it starts, open ``needed`` files. Raises BenchFailed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchFailed(
            f"a process may open {hard} files here, and {needed} are needed: raise `ulimit -Hn`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

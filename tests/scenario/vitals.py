"""Memory, threads and open files of a process, over its life.

with Vitals(lambda: service.pid) as vitals:     # once a second, whichever process it is then
    vitals.rest(service.pid)                    # now that nothing hangs: does it fall back?
vitals.lives[-1].growth()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Final

EVERY_S: Final = 1.0
RESTS_S: Final = 5.0
STEP_S: Final = 0.25
MIB: Final = 1024.0


@dataclass(frozen=True)
class Vital:
    """One look. ``open_files`` is None where only root may count them."""

    at_s: float
    rss_mib: float
    threads: int
    open_files: int | None

    def __str__(self) -> str:
        files = "" if self.open_files is None else f", {self.open_files} open files"
        return f"{self.rss_mib:.1f} MiB, {self.threads} threads{files}"


@dataclass
class Life:
    """All looks at one process; ``resting`` are those at times when nothing was going on."""

    pid: int
    looks: list[Vital] = field(default_factory=list)
    resting: list[Vital] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first look to the last."""
        return self.looks[-1].at_s - self.looks[0].at_s if self.looks else 0.0

    def rss_mib(self, warm_up_s: float) -> tuple[float, float]:
        """Resident memory after the warm-up and at the end: medians of a fifth of the rest each."""
        began_s = self.looks[0].at_s
        sizes = [look.rss_mib for look in self.looks if look.at_s - began_s >= warm_up_s]
        fifth = max(1, len(sizes) // 5)
        return median(sizes[:fifth]), median(sizes[-fifth:])

    def at_rest(self, warm_up_s: float) -> tuple[Vital, Vital]:
        """The least it fell back to in the first and in the second half after the warm-up."""
        began_s = self.looks[0].at_s
        warm = [rest for rest in self.resting if rest.at_s - began_s >= warm_up_s]
        rests = warm or self.resting
        middle = (len(rests) + 1) // 2
        return least(rests[:middle]), least(rests[middle:] or rests[-1:])


def least(looks: Sequence[Vital]) -> Vital:
    """The smallest of each."""
    files = [look.open_files for look in looks if look.open_files is not None]
    return Vital(
        looks[0].at_s,
        min(look.rss_mib for look in looks),
        min(look.threads for look in looks),
        min(files) if files else None,
    )


class Vitals:
    """Looks at the process whose id ``pid`` gives, again and again, in a thread of its own."""

    def __init__(self, pid: Callable[[], int]) -> None:
        self.lives: list[Life] = []
        self._pid = pid
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Vitals:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            pid = self._pid()
            look = look_at(pid)
            if look is not None:
                with self._lock:
                    self._life(pid).looks.append(look)

    def _life(self, pid: int) -> Life:
        if not self.lives or self.lives[-1].pid != pid:
            self.lives.append(Life(pid))
        return self.lives[-1]

    def rest(self) -> str:
        """Wait until threads and open files stay the same, then look; what is seen, in words."""
        pid = self._pid()
        before: tuple[int, int | None] | None = None
        deadline = time.monotonic() + RESTS_S
        while (look := look_at(pid)) is not None:
            now = look.threads, look.open_files
            if now == before or time.monotonic() > deadline:
                with self._lock:
                    life = self._life(pid)
                    life.looks.append(look)
                    life.resting.append(look)
                return str(look)
            before = now
            time.sleep(STEP_S)
        return "it ended"

    @property
    def all(self) -> list[Vital]:
        """Every look at every process, in order."""
        return [look for life in self.lives for look in life.looks]


def look_at(pid: int) -> Vital | None:
    """One look at a process; None when it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text().splitlines()
        said = dict(line.split(":", 1) for line in lines)
        rss_kib, threads = int(said["VmRSS"].split()[0]), int(said["Threads"])
    except (OSError, KeyError):  # it is gone, or just ending
        return None
    try:
        files = sum(1 for _ in (folder / "fd").iterdir())
    except PermissionError:  # kluis may not be traced: then only root sees its files
        files = None
    except OSError:
        return None
    return Vital(time.monotonic(), rss_kib / MIB, threads, files)

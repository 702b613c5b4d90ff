"""What a soak found: its summary, what must hold of it, and its result for ``bench/results``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Final

from bench.results import Result, Series, Target
from tests.scenario.vitals import Life, Vital

MIB_MORE: Final = 8.0
PART_MORE: Final = 0.10
SLACK: Final = 2
WARM_UP_S: Final = 60.0
WARM_UP_PART: Final = 0.3


@dataclass
class Course:
    """What happened: seconds of every come-back by its kind, and refusals that were right.

    *flapped*: from the moment that enough places were there after all the flapping, to the open
    keyring and to the active server, 0 when that was so already; *restarted*: from the server's
    start; *waited*: of a sealed server, from the place that made it enough, to the open keyring and
    to the active server; *paper*: from the start of the command that took the last share.
    """

    rounds: int = 0
    changes: int = 0
    rotations: int = 0
    flapped_open_s: list[float] = field(default_factory=list)
    flapped_s: list[float] = field(default_factory=list)
    restarted_s: list[float] = field(default_factory=list)
    waited_open_s: list[float] = field(default_factory=list)
    waited_active_s: list[float] = field(default_factory=list)
    paper_s: list[float] = field(default_factory=list)
    refusals: int = 0

    @property
    def come_backs_s(self) -> list[float]:
        """All come-backs of the server."""
        return [*self.flapped_s, *self.restarted_s, *self.waited_active_s, *self.paper_s]


@dataclass(frozen=True)
class Memory:
    """The kluis process that lived longest: after its warm-up, at its end; and the most of any."""

    lived_s: float
    rss_first_mib: float
    rss_last_mib: float
    rss_max_mib: float
    threads_first: int
    threads_last: int
    threads_max: int
    open_files_first: int | None
    open_files_last: int | None
    open_files_max: int | None

    @classmethod
    def of(cls, lives: list[Life]) -> Memory:
        """From the looks at every process."""
        life = max(lives, key=lambda one: one.seconds)
        warm_up_s = min(WARM_UP_S, WARM_UP_PART * life.seconds)
        first, last = life.at_rest(warm_up_s)
        sizes = [round(size, 1) for size in life.rss_mib(warm_up_s)]
        looks = [look for one in lives for look in one.looks]
        return cls(
            lived_s=round(life.seconds, 1),
            rss_first_mib=sizes[0],
            rss_last_mib=sizes[1],
            rss_max_mib=round(max(look.rss_mib for look in looks), 1),
            threads_first=first.threads,
            threads_last=last.threads,
            threads_max=max(look.threads for look in looks),
            open_files_first=first.open_files,
            open_files_last=last.open_files,
            open_files_max=_most(looks),
        )

    @property
    def rss_limit_mib(self) -> float:
        """What the last may be, as the first was."""
        return self.rss_first_mib * (1 + PART_MORE) + MIB_MORE

    def leaks(self) -> list[str]:
        """What grew, in words."""
        pairs = {
            "MiB resident": (self.rss_last_mib, self.rss_limit_mib),
            "threads": (self.threads_last, self.threads_first + SLACK),
            "open files": (self.open_files_last or 0, (self.open_files_first or 0) + SLACK),
        }
        return [
            f"{last:g} {what} at the end, at most {limit:g} wanted"
            for what, (last, limit) in pairs.items()
            if last > limit
        ]


def _most(looks: list[Vital]) -> int | None:
    files = [look.open_files for look in looks if look.open_files is not None]
    return max(files) if files else None


@dataclass(frozen=True)
class Summary:
    """All of it. ``server_gave_up`` counts ends of the server by itself, while kluis was away."""

    seed: int
    seconds: float
    course: Course
    memory: Memory
    kluis_processes: int
    openings: int
    heals: int
    server_gave_up: int

    def as_json(self) -> dict[str, object]:
        """For ``--output json``."""
        times = self.course.come_backs_s
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "rounds": self.course.rounds,
            "changes": self.course.changes,
            "come_backs": len(times),
            "come_back_median_s": round(median(times), 3),
            "come_back_longest_s": round(max(times), 3),
            "refusals": self.course.refusals,
            "rotations": self.course.rotations,
            "heals": self.heals,
            "openings": self.openings,
            "kluis_processes": self.kluis_processes,
            "server_gave_up": self.server_gave_up,
            "memory": asdict(self.memory),
        }

    def lines(self) -> list[str]:
        """For a person."""
        said, memory = self.as_json(), self.memory
        return [
            f"{said['rounds']} rounds in {self.seconds:.0f} s, seed {self.seed}: places changed"
            f" {said['changes']} times, kluis ran {self.kluis_processes} times",
            f"the server came back {said['come_backs']} times: median"
            f" {said['come_back_median_s']} s, longest {said['come_back_longest_s']} s",
            f"it stayed sealed, rightly, {said['refusals']} times",
            f"the keyring opened {self.openings} times; {self.course.rotations} keys were rotated,"
            f" {self.heals} leaves sealed anew",
            f"kluis, over {memory.lived_s:.0f} s: {memory.rss_first_mib} to {memory.rss_last_mib}"
            f" MiB resident (most {memory.rss_max_mib}), threads {memory.threads_first} to"
            f" {memory.threads_last} (most {memory.threads_max}), open files"
            f" {memory.open_files_first} to {memory.open_files_last}"
            f" (most {memory.open_files_max})",
        ]

    def result(self) -> Result:
        """For ``bench/results``. A soak that found an anomaly has no result."""
        course, memory = self.course, self.memory
        series = [
            Series(what, "s", tuple(times))
            for what, times in (
                ("server restarted, enough is there: start to active", course.restarted_s),
                ("server waits: last place back to keyring open", course.waited_open_s),
                ("server waits: last place back to active", course.waited_active_s),
                ("server waits: start of kluis unlock to active", course.paper_s),
                ("after flapping: enough is there to keyring open", course.flapped_open_s),
                ("after flapping: enough is there to active", course.flapped_s),
            )
            if times
        ]
        series += [
            Series(what, unit, (float(value),))
            for what, unit, value in (
                ("longest of all come-backs", "s", round(max(course.come_backs_s), 3)),
                ("rounds", "", course.rounds),
                ("changes of a place", "", course.changes),
                ("come-backs", "", len(course.come_backs_s)),
                ("refusals that were right", "", course.refusals),
                ("kluis: memory after the warm-up", "MiB", memory.rss_first_mib),
                ("kluis: memory at the end", "MiB", memory.rss_last_mib),
                ("kluis: peak memory", "MiB", memory.rss_max_mib),
                ("kluis: threads at rest, first half", "", memory.threads_first),
                ("kluis: threads at rest, second half", "", memory.threads_last),
                ("kluis: most threads", "", memory.threads_max),
                ("kluis: open files at rest, first half", "", memory.open_files_first),
                ("kluis: open files at rest, second half", "", memory.open_files_last),
                ("kluis: most open files", "", memory.open_files_max),
            )
            if value is not None
        ]
        targets = (
            Target(
                "soak: kluis, memory at the end",
                "at most",
                round(memory.rss_limit_mib, 1),
                "MiB",
                memory.rss_last_mib,
            ),
        )
        conditions = {
            "seed": self.seed,
            "seconds": round(self.seconds),
            "seconds of the longest kluis process": round(memory.lived_s),
            "kluis processes": self.kluis_processes,
        }
        return Result("soak", "Soak", tuple(series), targets=targets, conditions=conditions)

"""What was measured, what was promised, and the verdicts; as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

GOOD: Final = "good"
BAD: Final = "bad"
STYLES: Final = {GOOD: "bold green", BAD: "bold red"}


@dataclass(frozen=True, slots=True)
class Outage:
    """One time that the server was down. Times in seconds.

    The target is for ``took_s``. Where people or a disk were waited for, that is the part of
    ``down_s`` that was ``counted`` from when they had come; else it is ``down_s`` itself.
    ``what`` is for a second outage in one act; the first is known by the act's title.
    """

    who: str
    down_s: float
    took_s: float
    target_s: float
    counted: str = ""
    what: str = ""

    @property
    def good(self) -> bool:
        """Whether the target was met."""
        return self.took_s <= self.target_s


@dataclass(frozen=True, slots=True)
class Result:
    """An act, played. ``why`` says which check failed; it is empty when none did."""

    letter: str
    title: str
    outages: tuple[Outage, ...] = ()
    checks: tuple[str, ...] = ()
    secret_read_back: bool = False
    why: str = ""

    @property
    def good(self) -> bool:
        """No check failed, the secret is the same, and each target was met."""
        met = bool(self.outages) and all(outage.good for outage in self.outages)
        return met and self.secret_read_back and not self.why

    @property
    def complaint(self) -> str:
        """Why it is bad, in words; empty when it is good."""
        late = next((outage for outage in self.outages if not outage.good), None)
        if self.why or late is None:
            return self.why
        return f"{_time(late)} is more than {late.target_s:g} s"


@dataclass(frozen=True, slots=True)
class Report:
    """The whole run. ``played_s`` is without the set-up."""

    openbao: str
    kluis: str
    set_up_s: float
    played_s: float
    results: tuple[Result, ...]

    @property
    def good(self) -> bool:
        """Whether each act is."""
        return bool(self.results) and all(result.good for result in self.results)

    def as_json(self) -> dict[str, object]:
        """The same as the table, with what was checked."""
        return {
            "verdict": verdict(self.good),
            "openbao": self.openbao,
            "kluis": self.kluis,
            "set_up_s": round(self.set_up_s, 3),
            "played_s": round(self.played_s, 3),
            "acts": [_act(result) for result in self.results],
        }

    def table(self) -> Table:
        """Act, who acted, server down for, target, verdict."""
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        shown.add_column("")
        shown.add_column("act", ratio=3)
        shown.add_column("who acted")
        shown.add_column("server down for")
        shown.add_column("target", no_wrap=True, overflow="crop")
        shown.add_column("verdict", no_wrap=True, overflow="crop")
        for result in self.results:
            for row in _rows(result):
                shown.add_row(*row)
        return shown


def verdict(good: bool) -> str:
    """``good`` or ``bad``."""
    return GOOD if good else BAD


def coloured(good: bool) -> Text:
    """A verdict in its colour."""
    return Text(verdict(good), STYLES[verdict(good)])


def _act(result: Result) -> dict[str, object]:
    return {
        "act": result.letter,
        "title": result.title,
        "verdict": verdict(result.good),
        "why": result.complaint,
        "secret_read_back": result.secret_read_back,
        "checks": list(result.checks),
        "outages": [_outage(result, outage) for outage in result.outages],
    }


def _outage(result: Result, outage: Outage) -> dict[str, object]:
    return {
        "what": outage.what or result.title,
        "who": outage.who,
        "down_s": round(outage.down_s, 3),
        "counted": outage.counted or "from the fault",
        "took_s": round(outage.took_s, 3),
        "target_s": outage.target_s,
        "verdict": verdict(outage.good),
    }


def _rows(result: Result) -> Iterable[tuple[str | Text, ...]]:
    """A row for each outage; an act that has none is bad."""
    if not result.outages:
        yield result.letter, result.title, "", "", "", coloured(False)
    letter = result.letter
    for outage in result.outages:
        fine = result.good or (not result.why and result.secret_read_back and outage.good)
        down = f"{outage.down_s:.2f} s"
        target = f"{outage.target_s:g} s"
        if outage.counted:  # the target is for the second line
            down, target = f"{down}\n{_time(outage)}", f"\n{target}"
        yield letter, outage.what or result.title, outage.who, down, target, coloured(fine)
        letter = ""


def _time(outage: Outage) -> str:
    return f"{outage.took_s:.2f} s {outage.counted}".strip()

"""What a person sees while it runs: a live picture in a terminal, lines elsewhere.

Nothing else of the demonstration prints. A view is told what happens; it never asks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kluis.demo.report import GOOD, Report, Result, marked, verdict

_STATE_STYLES: Final = {
    "active": "green",
    "open": "green",
    "locked": "yellow",
    "sealed": "yellow",
    "standby": "yellow",
    "new": "cyan",
    "down": "red",
}


class View:
    """Shows nothing; the others show more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def began(self, letter: str, title: str) -> None:
        """An act begins; the set-up has no letter."""

    def step(self, words: str) -> None:
        """Something is done."""

    def checked(self, words: str) -> None:
        """Something was checked, and holds."""

    def state(self, name: str, state: str) -> None:
        """A service is in another state."""

    def ready(self, took_s: float) -> None:
        """The set-up is done."""

    def ended(self, result: Result) -> None:
        """An act is over."""

    def tick(self) -> None:
        """Time went on."""

    def finished(self, report: Report) -> None:
        """The end: the table."""


class _Shown(View):
    """What both ways of showing have in common: the clock, and the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def finished(self, report: Report) -> None:
        self._console.print()
        self._console.print(report.table())
        self._console.print()
        for result in report.results:
            if not result.good:
                self._console.print(Text(f"{result.letter} is bad: {result.complaint}", "red"))
        played = f"played in {report.played_s:.1f} s after a set-up of {report.set_up_s:.1f} s"
        self._console.print(f"OpenBao {report.openbao}, kluis {report.kluis}; {played}")


class Lines(_Shown):
    """One line for everything that happens, in order, with the seconds since the beginning."""

    def began(self, letter: str, title: str) -> None:
        self._line(f"{letter}  {title}" if letter else title)

    def step(self, words: str) -> None:
        self._line(f"     {words}")

    def checked(self, words: str) -> None:
        self._line(f"     checked: {words}")

    def state(self, name: str, state: str) -> None:
        self._line(f"     {name}: {state}")

    def ready(self, took_s: float) -> None:
        self._line("   ready")

    def ended(self, result: Result) -> None:
        why = f": {result.complaint}" if result.complaint else ""
        self._line(f"   {verdict(result.good)}{why}")

    def _line(self, words: str) -> None:
        self._console.out(f"{self._elapsed_s:6.2f} s  {words}", highlight=False)
        self._console.file.flush()


class Picture(_Shown):
    """All acts, the steps of the one that is being played, and how the services are."""

    def __init__(self, console: Console, acts: Sequence[tuple[str, str]]) -> None:
        super().__init__(console)
        self._lines: dict[str, tuple[str, Text]] = {"": ("set-up", Text())}
        self._lines |= {letter: (title, Text()) for letter, title in acts}
        self._playing = ""
        self._playing_since = self._began
        self._steps: list[tuple[str, str]] = []
        self._states: dict[str, tuple[str, float]] = {}
        self._spinner = Spinner("dots" if console.encoding.startswith("utf") else "line")
        self._live = Live(self._drawn(), console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

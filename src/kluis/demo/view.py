"""What a person sees while it runs: a live picture in a terminal, lines elsewhere.

Nothing else of the demonstration prints. A view is told what happens; it never asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kluis.demo.report import STYLES, Report, Result, verdict

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
        """The table, what is bad, and how long it took."""
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
        """An act begins."""
        self._line(f"{letter}  {title}" if letter else title)

    def step(self, words: str) -> None:
        """Something is done."""
        self._line(f"     {words}")

    def checked(self, words: str) -> None:
        """Something was checked, and holds."""
        self._line(f"     checked: {words}")

    def state(self, name: str, state: str) -> None:
        """A service is in another state."""
        self._line(f"     {name}: {state}")

    def ready(self, took_s: float) -> None:
        """The set-up is done."""
        self._line(f"   ready after {took_s:.1f} s")

    def ended(self, result: Result) -> None:
        """An act is over."""
        why = f": {result.complaint}" if result.complaint else ""
        self._line(f"   {verdict(result.good)}{why}")

    def _line(self, words: str) -> None:
        self._console.out(f"{self._elapsed_s:6.2f} s  {words}", highlight=False)
        self._console.file.flush()


class Picture(_Shown):
    """All acts, the steps of the one that is being played, and how the services are."""

    def __init__(self, console: Console, acts: Sequence[tuple[str, str]]) -> None:
        super().__init__(console)
        self._titles = {"": "set-up", **dict(acts)}
        self._ended: dict[str, tuple[Text, str]] = {}
        self._playing = ""
        self._since = self._began
        self._steps: list[tuple[str, str]] = []
        self._states: dict[str, tuple[str, float]] = {}
        self._fancy = console.encoding.startswith("utf")
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if self._fancy else "-\\|/"
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def began(self, letter: str, title: str) -> None:
        """An act begins."""
        self._titles[letter] = title
        self._playing, self._since = letter, time.monotonic()
        self._steps.clear()

    def step(self, words: str) -> None:
        """Something is done."""
        self._steps.append(("→" if self._fancy else ">", words))

    def checked(self, words: str) -> None:
        """Something was checked, and holds."""
        self._steps.append((self._mark(good=True), words))

    def state(self, name: str, state: str) -> None:
        """A service is in another state."""
        self._states[name] = state, time.monotonic()

    def ready(self, took_s: float) -> None:
        """The set-up is done."""
        self._ended[""] = self._outcome(good=True), f"{took_s:.1f} s"

    def ended(self, result: Result) -> None:
        """An act is over."""
        down = ", ".join(f"{outage.down_s:.2f} s" for outage in result.outages)
        said = f"down for {down}" if result.good else verdict(result.good)
        self._ended[result.letter] = self._outcome(good=result.good), said

    def tick(self) -> None:
        """Draw it anew."""
        self._live.update(self._drawn(), refresh=True)

    def _mark(self, *, good: bool) -> str:
        if self._fancy:
            return "✓" if good else "✗"
        return "+" if good else "x"

    def _outcome(self, *, good: bool) -> Text:
        return Text(self._mark(good=good), STYLES[verdict(good)])

    def _drawn(self) -> RenderableType:
        acts = (line for letter in self._titles for line in self._act(letter))
        return Group(self._heading(), "", *acts, "", self._services())

    def _heading(self) -> RenderableType:
        words = Text("kluis demo", "bold").append("  a stock OpenBao that always comes back", "dim")
        return _ends(words, Text(f"{self._elapsed_s:.1f} s"))

    def _act(self, letter: str) -> Iterator[RenderableType]:
        title = f"{letter or ' '} {self._titles[letter]}"
        if letter in self._ended:
            mark, said = self._ended[letter]
            yield _ends(Text.assemble(mark, f" {title}"), Text(said, "dim"))
        elif letter != self._playing:
            yield Text(f"  {title}", "dim")
        else:
            played_s = time.monotonic() - self._since
            frame = self._frames[int(played_s * 10) % len(self._frames)]
            words = Text.assemble((frame, "cyan"), (f" {title}", "bold"))
            yield _ends(words, Text(f"{played_s:.1f} s"))
            for sign, step in self._steps:
                style = "green" if sign == self._mark(good=True) else "cyan"
                yield Padding(_hung(Text(sign, style), step), (0, 0, 0, 4))

    def _services(self) -> RenderableType:
        line = Text()
        for name, (state, since) in self._states.items():
            for_s = time.monotonic() - since
            line.append("● " if self._fancy else "* ", _STATE_STYLES[state])
            line.append(f"{name} ").append(state, _STATE_STYLES[state])
            line.append(f" {for_s:.1f} s   ", "dim")
        return line


def _ends(left: Text, right: Text) -> RenderableType:
    """One line with something at each end of it."""
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True, overflow="crop")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def _hung(sign: Text, words: str) -> RenderableType:
    """A sign and words; what does not fit goes on under the words."""
    line = Table.grid(padding=(0, 1))
    line.add_row(sign, words)
    return line

"""``kluis demo``: a stock server that always comes back, played before one's eyes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Format

if TYPE_CHECKING:
    from kluis.demo.view import View

Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        metavar="DIR",
        help="Leave the configurations, logs and data in this new folder.",
        show_default=False,
    ),
]


def demo(output: Format = terminal.Output.TEXT, keep: Keep = None) -> None:
    """Guard a real OpenBao in a temporary folder, and let everything go wrong once.

    It takes less than a minute, and leaves nothing running and nothing behind.

    Exit code 0: every verdict is good, 1: one is bad.

    Example: kluis demo
    """
    from kluis.demo.play import perform

    as_json = output is terminal.Output.JSON
    view = _view(as_json)
    try:
        report = perform(view, keep)
    except KeyboardInterrupt:
        terminal.note("interrupted; everything that was started has ended")
        raise
    if as_json:
        terminal.data(report.as_json())
    else:
        view.finished(report)
    if not report.good:
        raise typer.Exit(1)


def _view(as_json: bool) -> View:
    """A picture where there is a terminal, lines for a file or a pipe, nothing beside JSON."""
    from rich.console import Console

    from kluis.demo.acts import ACTS
    from kluis.demo.view import Lines, Picture, View

    if as_json:
        return View()
    console = Console(highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return Picture(console, [(act.letter, act.title) for act in ACTS])
    return Lines(console)

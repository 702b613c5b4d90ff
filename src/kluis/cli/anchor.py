"""``kluis anchor``: one anchor by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session

app = typer.Typer(help="Anchors: could they open now, what are they.", no_args_is_help=True)

Anchor = Annotated[str, typer.Argument(help="The anchor's name in kluis.toml.")]


@app.command()
def probe(
    anchors: Annotated[list[str] | None, typer.Argument(help="Names; all when none.")] = None,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Ask anchors whether they could open now, and how long that took. Nothing is opened.

    Exit code 0: all could, 1: one could not.

    Example: kluis anchor probe disk
    """
    found = Session(config).call("anchor-probe", anchors=anchors or [])
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.entries(
            (name, said["state"], _probed(said)) for name, said in found["anchors"].items()
        )
    if any(said["state"] != "ok" for said in found["anchors"].values()):
        raise typer.Exit(1)


def _probed(said: Mapping[str, Any]) -> list[str]:
    took = f"({said['kind']}, {said['took_ms']} ms)"
    if error := said.get("error"):
        return [f"{error['seen']} {took}", f"why:  {error['means']}", f"next: {error['next']}"]
    return [f"it could open now {took}", *noticed(said["notice"])]


@app.command()
def show(anchor: Anchor, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show what an anchor tells of itself: versions, thumbprints, states. No secrets.

    Example: kluis anchor show disk
    """
    found = Session(config).call("anchor-show", anchor=anchor)
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.line(f"{anchor} ({found['kind']})")
    terminal.entries((name, "", [text]) for name, text in _facts(found["facts"]))
    for text in noticed(found["notice"]):
        terminal.line(text)


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each fact a line, and each of a table's."""
    for name, value in facts.items():
        shown = name.replace("_", " ")
        if isinstance(value, dict):
            yield from ((f"{shown} {inner}", text) for inner, text in _facts(value))
        elif isinstance(value, list):
            yield shown, ", ".join(map(str, value)) or "none"
        else:
            words = {True: "yes", False: "no", None: "unknown"}
            yield shown, words[value] if value is None or isinstance(value, bool) else str(value)


@app.command("create-key")
def create_key(
    anchor: Anchor, config: Config = None, output: Format = terminal.Output.TEXT
) -> None:
    """Make the key that an anchor's settings name. One that is there is never replaced.

    Example: kluis anchor create-key hsm
    """
    found = Session(config).call("anchor-create-key", anchor=anchor)
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.line(found["made"])


def noticed(notice: Mapping[str, str] | None) -> list[str]:
    """The lines for what is noticed of an anchor that works."""
    if not notice:
        return []
    return [f"note: {notice['seen']}", f"why:  {notice['means']}", f"next: {notice['next']}"]

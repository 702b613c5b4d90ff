"""``kluis heal``: seal leaves anew that would not open at the next outage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session

EXIT_LOCKED = 2


def heal(
    keyring: Annotated[str | None, typer.Argument(help="The keyring; all when none.")] = None,
    anchor: Annotated[
        list[str] | None, typer.Option("--anchor", help="Only this anchor; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Open every leaf for real; seal anew what is unsealed, damaged, refused for good or outdated.

    A running service does that by itself, but for anchors with heal = "ask". What is sealed is
    opened again before anything is written.

    Exit code 0: all is well, 1: a leaf could not be healed, 2: a keyring is locked.

    Example: kluis heal --dry-run
    """
    found = Session(config).call("heal", keyring=keyring, anchors=anchor or [], dry_run=dry_run)
    if terminal.as_json():
        terminal.data(found)
    else:
        _show(found, dry_run)
    if any(said["failed"] for said in found["keyrings"].values()):
        raise typer.Exit(1)
    if found["locked"]:
        raise typer.Exit(EXIT_LOCKED)


def _show(found: Mapping[str, Any], dry_run: bool) -> None:
    for name, said in found["keyrings"].items():
        if not said["found"]:
            terminal.line(f"{name}: every leaf that could be asked is well.")
            continue
        terminal.line(f"{name}: {_headline(said, dry_run)}")
        terminal.entries(
            _entry(anchor, why, said, dry_run) for anchor, why in said["found"].items()
        )
    for name in found["locked"]:
        terminal.line(
            f"{name}: locked; only who can open a keyring can heal it: kluis unlock {name}"
        )


def _headline(said: Mapping[str, Any], dry_run: bool) -> str:
    return "these leaves would be sealed anew" if dry_run else f"revision {said['revision']}"


def _entry(
    anchor: str, why: str, said: Mapping[str, Any], dry_run: bool
) -> tuple[str, str, list[str]]:
    error = said["failed"].get(anchor)
    if error is None:
        return anchor, "sick" if dry_run else "healed", [why]
    return (
        anchor,
        "failed",
        [why, error["seen"], f"why:  {error['means']}", f"next: {error['next']}"],
    )

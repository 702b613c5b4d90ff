"""``kluis server migrate``: where it stands, for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kluis.cli import terminal


def show(told: Mapping[str, Any]) -> None:
    """Where it stands, each node, and what comes next."""
    if told["place"] is None:
        terminal.line(f"{told['server']}: no migration was begun; --to begins one")
        return
    terminal.line(f"{told['server']}: {_headline(told)}")
    terminal.entries(
        (address, node["stand"], [_seal(node)]) for address, node in told["nodes"].items()
    )
    terminal.folded(f"  {note}" for note in told["notes"])
    if following := told["next"]:
        _show_next(following)


def _show_next(following: Mapping[str, Any]) -> None:
    """What a person does next; a path is on a line of its own, so that it can be copied."""
    terminal.folded([f"next: {following['what']}"])
    if following["file"]:
        terminal.line(f"  file:  {following['file']}")
    if following["otherwise"]:
        terminal.line(f"  file:  {following['otherwise']}, if it stays sealed with that one")
    if following["nodes"]:
        terminal.line(f"  nodes: {', '.join(following['nodes'])}")
    if following["hint"]:
        terminal.folded([f"  {following['hint']}"])


def _seal(node: Mapping[str, Any]) -> str:
    return f"{node['seal'] or 'seal not known'}{', active' if node['active'] else ''}"


def _headline(told: Mapping[str, Any]) -> str:
    if told["place"] == "gone-back":
        return "back on the seal that it had"
    chosen = told["seal"] if told["to"] == "other" else told["to"]
    if told["back"]:
        return "going back to the seal that it had"
    way = f"from {told['from']} to {chosen}"
    if told["place"] == "done":
        return f"moved {way}, proven {told['proven']}"
    return f"on its way {way}, since {told['began']}"

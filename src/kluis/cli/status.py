"""``kluis status``, ``verify`` and ``explain``: what is open, what works, who could open."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.errors import UsageError

EXIT_LOCKED = 2

Keyring = Annotated[str, typer.Argument(help="The keyring's name.")]


def status(config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show every keyring and its anchors. Exit code 0: all open, 2: one is locked, 1: error.

    Example: kluis status --output json
    """
    found = Session(config).call("status")
    if terminal.as_json():
        terminal.data(found)
    else:
        _show(found)
    if any(keyring["state"] != "open" for keyring in found["keyrings"].values()):
        raise typer.Exit(EXIT_LOCKED)


def _show(found: dict[str, Any]) -> None:
    if not found["service"]:
        terminal.line("no service runs; the anchors were asked from here")
    for name, keyring in found["keyrings"].items():
        terminal.line()
        _show_keyring(name, keyring)
    for client, days in found["expires_in_days"].items():
        terminal.line(f"the token of {client} expires in {days} days")


def _show_keyring(name: str, keyring: dict[str, Any]) -> None:
    if not keyring["revision"]:
        terminal.line(f"{name}: not made yet; kluis apply makes it")
        return
    held = ", by hand" if keyring["held"] else ""
    terminal.line(
        f"{name}: {keyring['state']}{held} (epoch {keyring['epoch']},"
        f" revision {keyring['revision']}); opens with: {keyring['opens']}"
    )
    terminal.table(
        ("anchor", "state", "seen", "next"),
        ([anchor, s["state"], s["seen"], s["next"]] for anchor, s in keyring["anchors"].items()),
    )
    if keyring["needs"]:
        terminal.line("would open with " + ", or ".join(" and ".join(s) for s in keyring["needs"]))


def verify(keyring: Keyring, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Open every leaf of a keyring for real, and say which anchors work.

    Exit code 0: every anchor works, 2: the keyring is locked, 1: an anchor failed.

    Example: kluis verify homelab
    """
    found = Session(config).call("verify", keyring=keyring)
    if terminal.as_json():
        terminal.data(found)
    else:
        _show_keyring(keyring, found[keyring])
    if any(s["state"] not in ("ok", "waiting") for s in found[keyring]["anchors"].values()):
        raise typer.Exit(1)


def explain(keyring: Keyring, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Say who can open a keyring, what may be lost, and what must never be stolen together.

    Example: kluis explain homelab
    """
    from kluis.keyring import policy, trust

    settings = Session(config).file.settings
    if keyring not in settings.keyrings:
        raise UsageError(
            f"there is no keyring {keyring}",
            f"kluis.toml declares: {', '.join(sorted(settings.keyrings)) or 'none'}",
            "correct the name",
        )
    rule = policy.parse(settings.keyrings[keyring].opens)
    found = trust.explain(rule)
    if terminal.as_json():
        sets = {"quorums": [*map(list, found.quorums)], "cuts": [*map(list, found.cuts)]}
        terminal.data({keyring: sets})
        return
    for text in _sentences(policy.show(rule), found):
        terminal.line(text)


def _sentences(rule: str, found: Any) -> list[str]:
    return [
        f"Rule: {rule}",
        "",
        "It opens with any of:",
        *(f"  {' and '.join(names)}" for names in found.quorums),
        "",
        "It is locked for good once one of these is lost as a whole:",
        *(f"  {' and '.join(names)}" for names in found.cuts),
        "",
        f"Any {found.may_be_lost} may be lost at once."
        if found.may_be_lost
        else "Nothing may be lost: "
        + ", ".join(found.indispensable)
        + " is needed every time. Add another way with 'or'.",
        f"A thief needs only one of: {', '.join(found.alone)}."
        if found.alone
        else "No single theft opens it.",
    ]

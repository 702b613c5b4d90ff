"""``kluis status`` and ``kluis verify``: what is open, and what works."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.anchor import noticed
from kluis.cli.options import Config, Format
from kluis.cli.session import Session

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
        terminal.line("No service runs here; the anchors were asked by this command.")
        terminal.line()
    for name, keyring in found["keyrings"].items():
        _show_keyring(name, keyring)
    if found["servers"]:
        _show_servers(found["servers"])
    for client, days in found["expires_in_days"].items():
        terminal.line(_expiry(client, days))


def _show_servers(servers: dict[str, Any]) -> None:
    from kluis.cli.server.shown import summary

    terminal.line()
    terminal.folded(summary(name, server) for name, server in servers.items())


def _expiry(client: str, days: int) -> str:
    if days < 0:
        return f"The token of {client} expired: kluis client issue {client} gives a new one."
    when = "today" if days == 0 else "tomorrow" if days == 1 else f"in {days} days"
    return f"The token of {client} expires {when}."


def _show_keyring(name: str, keyring: dict[str, Any]) -> None:
    if not keyring["revision"]:
        terminal.line(f"{name}: not made yet; kluis apply makes it.")
        return
    held = " by hand" if keyring["held"] else ""
    terminal.line(
        f"{name}: {keyring['state']}{held}"
        f" (epoch {keyring['epoch']}, revision {keyring['revision']})"
    )
    terminal.line(f"opens with: {keyring['opens']}")
    terminal.line()
    terminal.entries(
        (anchor, said["state"], _lines(said)) for anchor, said in keyring["anchors"].items()
    )
    terminal.line()
    if keyring["contradicted"]:
        terminal.line("Enough anchors answered, and yet it does not open: the document was changed")
        terminal.line(
            "by somebody, or an answer is wrong. Put the last good document back (history"
        )
        terminal.line("beside it, or a backup) and start with --accept-rollback.")
    elif keyring["needs"]:
        terminal.line(f"It would open with {ways(keyring)}.")


def _lines(said: dict[str, Any]) -> list[str]:
    failing = said["state"] not in ("ok", "waiting")
    why = [f"why:  {said['means']}"] if failing and said["means"] else []
    step = [f"next: {said['next']}"] if said["next"] else []
    return [said["seen"], *why, *step, *noticed(said["notice"])]


def ways(keyring: dict[str, Any]) -> str:
    """What would open a locked keyring now, in words."""
    return ", or ".join(
        " and ".join(_lacking(keyring, name) for name in names) for names in keyring["needs"]
    )


def _lacking(keyring: dict[str, Any], name: str) -> str:
    people = keyring["people"].get(name)
    if people is None:
        return name
    missing = people["needed"] - people["entered"]
    more = " more" if people["entered"] else ""
    return f"{missing}{more} share{'s' if missing > 1 else ''} of {name}"


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
    if found[keyring]["state"] != "open":
        raise typer.Exit(EXIT_LOCKED)
    if any(s["state"] not in ("ok", "waiting") for s in found[keyring]["anchors"].values()):
        raise typer.Exit(1)

"""``kluis server list``, ``show``, ``hold``, ``release`` and ``wake``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.server import shown
from kluis.cli.session import Session
from kluis.errors import UsageError

EXIT_SEALED: Final = 2
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Name = Annotated[str, typer.Argument(metavar="NAME", help="As in [servers.NAME] of kluis.toml.")]


def list_(config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show every declared server and its nodes: sealed or not, held, and what is wrong.

    A running service that watches them tells it; else each node is asked once. Exit code 0: all
    nodes are unsealed, 2: one is not, 1: error.

    Example: kluis server list
    """
    found = Session(config).call("server-list")
    if terminal.as_json():
        terminal.data(found)
    elif not found["servers"]:
        terminal.line("No server is declared; kluis server add NAME --address URL adds one.")
    else:
        shown.servers(found["servers"], watched=found["watched"])
    _exit(found)


def show(name: Name, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show one server: its nodes, and what is declared of it. Exit codes as of the list.

    Example: kluis server show old-vault
    """
    session = Session(config)
    found = session.call("server-list", server=name)
    if terminal.as_json():
        terminal.data(found)
    else:
        shown.servers(found["servers"], watched=found["watched"])
        hooks = session.file.settings.wake
        kinds = {hook: said.kind for hook, said in hooks.items()}
        terminal.line()
        terminal.folded(shown.declared(found["servers"][name], kinds))
    _exit(found)


def _exit(found: dict[str, Any]) -> None:
    if any(server["condition"] != "unsealed" for server in found["servers"].values()):
        raise typer.Exit(EXIT_SEALED)


def hold(
    name: Name,
    length: Annotated[
        str,
        typer.Option("--for", metavar="TIME", help="As 90s, 30m, 2h or 1d; else until release."),
    ] = "",
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Let a server stay as it is: while it is held, nobody here unseals it.

    For a seal on purpose, or for work at the server. A hold outlives a restart of kluis.

    Example: kluis server hold old-vault --for 2h
    """
    found = Session(config).call("server-hold", server=name, for_s=_length_s(length))
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.line(f"{name} is {shown.held(found['hold'])}")


def _length_s(text: str) -> int | None:
    if not text:
        return None
    parts = re.fullmatch(r"([0-9]{1,8})([smhd])", text)
    if parts is None:
        raise UsageError(
            f"{text!r} is not a length of time",
            "it is a number and a unit: s, m, h or d",
            "write it like 90s, 30m, 2h or 1d",
        )
    return int(parts[1]) * _UNITS_S[parts[2]]


def release(name: Name, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Let a held server go: from now on it is unsealed again.

    Also one that is let be because a person sealed it while it ran.

    Example: kluis server release old-vault
    """
    found = Session(config).call("server-release", server=name)
    if terminal.as_json():
        terminal.data(found)
    elif found["released"]:
        terminal.line(f"{name} is released")
    else:
        terminal.line(f"{name} was not held")


def wake(name: Name, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Run the wake hooks of a server now, in the running service, as after a recovery.

    Exit code 0: all did their work, 1: one did not, or an error.

    Example: kluis server wake old-vault
    """
    found = Session(config).call_service("server-wake", server=name)
    if terminal.as_json():
        terminal.data(found)
    else:
        shown.outcomes(found["outcomes"])
    if not all(outcome["ok"] for outcome in found["outcomes"]):
        raise typer.Exit(1)

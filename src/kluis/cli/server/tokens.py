"""A server's token where a person gives one: on standard input, or in the environment.

A token of the environment is for the server that ``BAO_ADDR`` or ``VAULT_ADDR`` names there. It
must not go to another one that happens to be named on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from kluis.cli import terminal
from kluis.cli.session import Session
from kluis.errors import UsageError

TokenOnInput = Annotated[
    bool,
    typer.Option(
        "--token-stdin",
        help="Read a token from standard input; else from BAO_TOKEN or VAULT_TOKEN.",
    ),
]
ADDRESSED: Final = {
    "BAO_TOKEN": ("BAO_ADDR", "VAULT_ADDR"),
    "VAULT_TOKEN": ("VAULT_ADDR", "BAO_ADDR"),
}
"""Each token with what says whose it is; the first that is set counts, as with the servers' own
commands."""


def token(session: Session, name: str, *, on_input: bool) -> str:
    """A token for the server of a name; empty where nobody gave one.

    Raises UsageError when standard input has none, or when the one of the environment is for
    another server; SettingsError.
    """
    if not on_input:
        return _in_environment(session, name, os.environ)
    for line in terminal.secret_lines("token: "):
        return line.strip()
    raise UsageError(
        "standard input has no token", "--token-stdin reads one line", "give it, or leave that out"
    )


def _in_environment(session: Session, name: str, environment: Mapping[str, str]) -> str:
    for variable, addresses in ADDRESSED.items():
        if found := environment.get(variable, ""):
            whose = next((one for one in addresses if environment.get(one)), None)
            if whose is not None and not _is_of(session, name, environment[whose]):
                raise UsageError(
                    f"{variable} is for the server that {whose} names, which is not {name}",
                    f"no address of [servers.{name}] in kluis.toml is that one; the token was not"
                    " sent",
                    f"unset {variable}, or set {whose} to an address of {name}; or give a token"
                    " with --token-stdin",
                )
            return found
    return ""


def _is_of(session: Session, name: str, address: str) -> bool:
    """Whether an address is one of those that kluis.toml has for a server."""
    from kluis.addresses import endpoint

    server = session.file.settings.servers.get(name)
    if server is None:
        return False
    known = server.addresses if server.dns is None else (f"https://{server.dns}",)
    try:
        return endpoint(address) in [endpoint(one) for one in known]
    except ValueError:
        return False

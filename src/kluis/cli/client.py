"""``kluis client``: who may use keys, and their tokens."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.errors import UsageError

app = typer.Typer(help="Clients and their tokens.", no_args_is_help=True)

Client = Annotated[str, typer.Argument(help="The client's name.")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command("list")
def list_(config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show every client, its keys and its conditions.

    Example: kluis client list
    """
    found = Session(config).call("client-list")
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.table(
        ("client", "keys", "certificate", "networks", "tokens"),
        (
            [
                name,
                ", ".join(client["keys"]),
                client["certificate_san"] or "any",
                ", ".join(client["networks"]) or "any",
                "; ".join(_token(token) for token in client["tokens"]) or "none",
            ]
            for name, client in found["clients"].items()
        ),
    )


def _token(token: dict[str, str | None]) -> str:
    return f"of {token['issued']}, " + (
        f"until {token['expires']}" if token["expires"] else "never expires"
    )


@app.command()
def issue(
    client: Client,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    overlap: Annotated[
        str, typer.Option(help="How long older tokens still work: 30m, 24h, 7d; 0 ends them now.")
    ] = "24h",
    expires: Annotated[
        str, typer.Option(help="When the new token ends: 90d. Without it, never.")
    ] = "",
) -> None:
    """Print a new token for a client; its older ones still work for a while.

    Example: kluis client issue bletchley --overlap 24h
    """
    lives_s = seconds(expires) if expires else 0
    if expires and not lives_s:
        raise UsageError(
            f"a token that expires after {expires} is of no use",
            "it would be refused from the start",
            "give it some days, or leave --expires out: then it never expires",
        )
    found = Session(config).call(
        "client-issue", client=client, overlap_s=seconds(overlap), expires_s=lives_s
    )
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.line(f"Token of {client}, shown once: {found['token']}")
    terminal.line(f"Older tokens end at {found['older_tokens_end']}.")


@app.command()
def revoke(client: Client, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """End all tokens of a client at once. Its server can't unseal until a new one is issued.

    Example: kluis client revoke bletchley
    """
    found = Session(config).call("client-revoke", client=client)
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.line(f"{client} has no token any more; kluis client issue {client} gives one")


def seconds(duration: str) -> int:
    """Seconds of ``30m``, ``24h``, ``7d``. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,7})([smhd]?)", duration.strip())
    if match is None:
        raise UsageError(
            f"{duration!r} is not a duration", "one reads 30m, 24h or 7d", "correct it"
        )
    return int(match[1]) * _UNITS[match[2] or "s"]

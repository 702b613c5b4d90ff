"""``kluis key``: keys and their versions."""

from __future__ import annotations

from typing import Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session

app = typer.Typer(help="Keys and their versions.", no_args_is_help=True)


@app.command("list")
def list_(config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show every key.

    Example: kluis key list
    """
    found = Session(config).call("key-list")
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.table(
        ("key", "kind", "latest version", "minimum"),
        (
            [name, key["kind"], str(key["latest"]), str(key["minimum"])]
            for name, key in found["keys"].items()
        ),
    )


@app.command()
def rotate(
    key: Annotated[str, typer.Argument(help="KEYRING/KEY")],
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Make a new version of a key; older versions still decrypt.

    A server on seal "transit" wraps its keys anew by itself at its next unseal.

    Example: kluis key rotate homelab/bletchley
    """
    found = Session(config).call("key-rotate", key=key)
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.line(f"{key} is at version {found['latest']}; back up the keyring now")

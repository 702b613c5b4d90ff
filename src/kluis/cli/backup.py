"""``kluis backup``: which backups of servers are known, so that their versions stay."""

from __future__ import annotations

from typing import Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session

app = typer.Typer(help="Known backups of servers.", no_args_is_help=True)


@app.command("list")
def list_(config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show every known backup and the key version it needs.

    Example: kluis backup list
    """
    found = Session(config).call("backup-list")
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.table(
        ("backup", "of", "key", "version", "noted"),
        (
            [name, backup["label"], backup["key"], str(backup["version"]), backup["noted"]]
            for name, backup in found["backups"].items()
        ),
    )


@app.command()
def note(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A client's name, or any words.")],
    key: Annotated[str, typer.Option("--key", metavar="KEYRING/KEY", help="What sealed it.")],
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", help="The version it needs.", show_default=False),
    ] = None,
    client: Annotated[
        str, typer.Option("--client", metavar="NAME", help="Whose backup it is.")
    ] = "",
) -> None:
    """Note a backup of a server's storage: kluis key retire then keeps the version it needs.

    Without --version that is the one of the client's last unseal, by the audit log. The client is
    --client, or the label if it is a client's name, or the only one that may use the key.

    Example: kluis backup note "restic 2026-11-20" --key homelab/bletchley --version 1
    """
    found = Session(config).call(
        "backup-note", label=label, key=key, version=version, client=client
    )
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.line(f"noted as {found['id']}: {label} needs version {found['version']} of {key}")


@app.command()
def forget(
    backup: Annotated[str, typer.Argument(metavar="ID", help="As in kluis backup list.")],
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Forget a backup that is gone, so that it keeps no version any more.

    Example: kluis backup forget homelab/1
    """
    found = Session(config).call("backup-forget", id=backup)
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.line(f"{backup} is forgotten")

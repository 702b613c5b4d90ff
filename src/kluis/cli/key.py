"""``kluis key``: keys over their life."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kluis.cli import material, shares_in, terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.errors import ChangeRefused

app = typer.Typer(help="Keys: their versions, in and out, and their end.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="KEYRING/KEY")]


@app.command("list")
def list_(config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Show every key.

    Versions below the minimum were retired: they decrypt nothing. Of a server's shares it says how
    many are kept, and how many are needed.

    Example: kluis key list
    """
    found = Session(config).call("key-list")
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.table(
        ("key", "kind", "holds"),
        ([name, key["kind"], _holds(key)] for name, key in found["keys"].items()),
    )


def _holds(key: dict[str, Any]) -> str:
    """The versions; of a server's shares, whose version means nothing to a person, the shares."""
    if key["kind"] != "unseal-shares":
        return f"version {key['latest']}, minimum {key['minimum']}"
    kept = key["kept"]
    if kept is None:
        return "not known: locked, or damaged"
    if not kept["shares"]:
        return "nothing yet: an init is not over"
    what = "recovery keys" if kept["purpose"] == "recovery" else "shares"
    return f"{kept['shares']} {what}, {kept['threshold']} needed"


@app.command()
def rotate(
    key: Key,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Also a key given by bootstrap: no other node has it."),
    ] = False,
) -> None:
    """Make a new version of a key; older versions still decrypt.

    A server on seal "transit" wraps its keys anew by itself at its next unseal, so after its next
    restart. The restart after that one no longer needs the old version: then it may be retired.

    Example: kluis key rotate homelab/bletchley
    """
    found = Session(config).call("key-rotate", key=key, alone=alone)
    if terminal.as_json():
        terminal.data(found)
    else:
        terminal.line(f"{key} is at version {found['latest']}; back up the keyring now")


@app.command("import")
def import_(
    key: Key,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="A file that only you can read; else standard input."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Destroy what is there: a key no client used, or shares."),
    ] = False,
    shares: Annotated[
        str | None,
        typer.Option("--shares", metavar="-|FILE", help="Shares of a server, one a line."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", metavar="K", help="How many shares are needed.")
    ] = None,
    recovery: Annotated[
        bool, typer.Option("--recovery", help="The shares are recovery keys of an auto seal.")
    ] = False,
) -> None:
    """Take a Transit key of an OpenBao, or with --shares the unseal shares of a server.

    The servers that a Transit key seals then unseal here as they are.

    Reads what bao read -format=json transit/export/encryption-key/NAME prints, or
    transit/backup/NAME; pipe it in. kluis.toml must declare the key with kind = "transit". One
    that kluis apply made for it already goes with --replace, if no client used it. Importing
    again adds the versions that came since.

    Shares are hex or base64, as an init printed them; - reads standard input, or asks without
    showing them. The key is not declared. With more shares than are needed it shows whether they
    belong together. More shares of a kept set join it; another set needs --replace.

    Example: kluis key import homelab/bletchley --file export.json
    """
    from kluis.keyring.exchange import MAX_EXPORT_BYTES

    session = Session(config)
    if shares is not None or threshold is not None or recovery:
        given = shares_in.Given(shares, file, threshold, recovery, replace)
        shares_in.take(session, key, given)
        return
    export = material.read(file, MAX_EXPORT_BYTES)
    found = session.call("key-import", key=key, export=export, replace=replace)
    if terminal.as_json():
        terminal.data(found)
        return
    versions = _range(found["first"], found["latest"])
    if not found["changed"]:
        terminal.line(f"{key} has all of it already ({versions}); nothing was changed")
        return
    place = ", in place of the one made here" if found["replaced"] else ""
    terminal.line(f"{key} is now the key {found['imported']} ({versions}){place}")
    if found["minimum"] > found["first"]:
        terminal.line(f"versions below {found['minimum']} were retired there, and are here")
    if not found["clients"]:
        terminal.line("no client may use it yet: declare one, and run kluis apply")
    terminal.line("back up the keyring now")


@app.command()
def export(
    key: Key,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Print a transit key with all its versions, as transit/restore of an OpenBao takes it.

    This is secret material: whoever has it can unseal every server that the key seals. It goes to
    standard output and nowhere else; pipe it on. The audit log records that it was given out.

    Example: kluis key export homelab/bletchley --yes
    """
    _confirm_export(key, yes)
    found = Session(config).call("key-export", key=key)
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.line(found["backup"])
    name = key.partition("/")[2]
    terminal.note(
        f"This was the secret material of {key}, {_range(found['first'], found['latest'])}."
        f" bao write transit/restore/{name} backup=- takes it on standard input."
    )


def _confirm_export(key: str, yes: bool) -> None:
    if terminal.shown_to_person():
        terminal.note(
            "warning: standard output is a terminal, which keeps what it showed; better pipe it on"
        )
    question = f"print the secret material of {key}? who has it can unseal what the key seals."
    if not yes and not terminal.confirm(question):
        raise ChangeRefused(
            "nothing was printed", "you did not say yes", "run it again and say y, or add --yes"
        )


@app.command()
def retire(
    key: Key,
    before: Annotated[
        int, typer.Option("--before", metavar="N", help="The oldest version that stays.")
    ],
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what each client and backup needs.")
    ] = False,
    accept_unknown: Annotated[
        bool,
        typer.Option("--accept-unknown", help="Also if no unseal of some client is on record."),
    ] = False,
) -> None:
    """Let versions of a transit key below N decrypt nothing any more.

    Refuses while a client's last unseal (by the audit log) or a known backup (kluis backup list)
    needs an older one. A server that was sealed before a rotation comes to the new version by two
    restarts: the first one still unseals with the old version and wraps the keys anew; the second
    one proves it.

    The material stays in the keyring: kluis key reinstate takes it back.

    Example: kluis key retire homelab/bletchley --before 2 --dry-run
    """
    found = Session(config).call(
        "key-retire", key=key, before=before, dry_run=dry_run, accept_unknown=accept_unknown
    )
    if terminal.as_json():
        terminal.data(found)
    elif dry_run:
        _show_needs(found)
    elif found["changed"]:
        terminal.line(f"versions of {key} below {before} decrypt nothing any more")
    else:
        terminal.line(f"{key} has the minimum {found['minimum']} already; nothing was changed")


def _show_needs(found: dict[str, Any]) -> None:
    terminal.entries(
        (name, said["state"], [_need(said)])
        for name, said in [*found["clients"].items(), *found["backups"].items()]
    )
    key, before = found["key"], found["before"]
    if not found["allowed"]:
        terminal.line(f"versions of {key} below {before} can't be retired now:")
        terminal.line(f"  {found['why_not']['seen']}")
        terminal.line(f"  next: {found['why_not']['next']}")
    elif found["minimum"] >= before:
        terminal.line(f"{key} has the minimum {found['minimum']} already")
    else:
        terminal.line(f"versions of {key} below {before} can be retired")


def _need(said: dict[str, Any]) -> str:
    if "label" in said:
        return f"backup: {said['label']}; needs version {said['needs']}"
    if said["needs"] is None:
        return "no unseal is on record"
    return f"needed version {said['needs']} at its last unseal, {said['unsealed']}"


@app.command()
def reinstate(
    key: Key,
    first: Annotated[
        int, typer.Option("--from", metavar="N", help="The oldest version that decrypts again.")
    ],
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Let versions of a transit key from N on, which were retired, decrypt again.

    Example: kluis key reinstate homelab/bletchley --from 1
    """
    found = Session(config).call("key-reinstate", key=key, first=first)
    if terminal.as_json():
        terminal.data(found)
    elif found["changed"]:
        terminal.line(f"versions of {key} from {first} on decrypt again")
    else:
        terminal.line(f"{key} has the minimum {found['minimum']} already; nothing was changed")


def _range(first: int, latest: int) -> str:
    return f"version {first}" if first == latest else f"versions {first} to {latest}"

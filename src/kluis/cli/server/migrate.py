"""``kluis server migrate``: a server moved to another seal, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.server import declaring, moved, tokens
from kluis.cli.server.beginning import Wish, begin
from kluis.cli.server.tokens import TokenOnInput
from kluis.cli.session import Session
from kluis.errors import ChangeRefused, UsageError

WAIT_S: Final = 20
"""How long one call waits for news, before it asks again."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="As in [servers.NAME].")]
To = Annotated[
    str, typer.Option("--to", help="facade, static or shamir; other: as --new-config has it.")
]
Status = Annotated[bool, typer.Option("--status", help="Only say where it stands; change nothing.")]
Back = Annotated[bool, typer.Option("--back", help="Turn round: back to the seal it had.")]
Wait = Annotated[bool, typer.Option("--wait", help="Stay, watch the restarts, go on until done.")]
Restarted = Annotated[
    bool,
    typer.Option("--restarted", help="Your word: every node was restarted with the last stanza."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Key = Annotated[str, typer.Option("--key", metavar="KEYRING/KEY", help="The key of the new seal.")]
Client = Annotated[str, typer.Option("--client", help="The client that it is to the facade.")]
OldConfig = Annotated[
    Path | None,
    typer.Option("--old-config", metavar="FILE", help="The server's configuration as it is now."),
]
NewConfig = Annotated[
    Path | None,
    typer.Option("--new-config", metavar="FILE", help="A stanza of your own to move to."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="For stanzas and snapshot.  [default: NAME-seal]"),
]
Snapshot = Annotated[
    Path | None, typer.Option("--snapshot", metavar="FILE", help="Where the snapshot goes.")
]
NoSnapshot = Annotated[
    bool, typer.Option("--no-snapshot", help="Take none: you have a backup of your own.")
]
Issue = Annotated[
    bool, typer.Option("--issue", help="Issue a new token for the client, into the stanza.")
]
Repoint = Annotated[
    bool,
    typer.Option("--re-point", help="Your word: the key of its seal was imported into kluis."),
]


def migrate(  # noqa: PLR0913, PLR0917 - one for each option
    name: Name,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    to: To = "",
    status: Status = False,
    back: Back = False,
    wait: Wait = False,
    restarted: Restarted = False,
    yes: Yes = False,
    key: Key = "",
    client: Client = "",
    old_config: OldConfig = None,
    new_config: NewConfig = None,
    out: Out = None,
    snapshot: Snapshot = None,
    no_snapshot: NoSnapshot = False,
    token_stdin: TokenOnInput = False,
    issue: Issue = False,
    repoint: Repoint = False,
) -> None:
    """Move a server to another seal: begin, go on, or turn round.

    Run it again after each restart, or once with --wait: it looks at the server, gives it the
    shares that the keyring keeps, and says what to do next. Until the last restart has proven the
    new seal, --back goes back. The snapshot needs a token of the server: in BAO_TOKEN or
    VAULT_TOKEN, or on standard input. Exit codes: 0 done, 2 waiting for you, 1 error.

    Example: kluis server migrate old-vault --to facade --wait
    """
    session = Session(config)
    token = "" if status else tokens.token(session, name, on_input=token_stdin)
    told = session.call("server-migration", server=name)
    if status:
        _finish(told)
    if told["ended"] and to and not _is_there(told, to, key):
        folder = out or Path(f"{name}-seal")
        wish = Wish(
            name, to, key, client, old_config, new_config, folder, snapshot, no_snapshot, issue,
            repoint, yes, token,
        )  # fmt: skip
        begin(session, wish)
    elif not told["ended"] and to not in ("", told["to"]):
        raise _another(told, to)
    if back:
        _turn(session, name, yes)
    _go_on(session, name, wait=wait, token=token, restarted=restarted)


def _is_there(told: Mapping[str, Any], to: str, key: str) -> bool:
    """Whether the last migration led to where it is to go."""
    return told["place"] == "done" and told["to"] == to and key in ("", told["key"])


def _another(told: Mapping[str, Any], to: str) -> UsageError:
    return UsageError(
        f"{told['server']} is on its way to {told['to']} already, since {told['began']}",
        f"it can't go to {to} at the same time",
        f"kluis server migrate {told['server']} goes on with it, and --back turns it round",
    )


def _turn(session: Session, name: str, yes: bool) -> None:
    if not yes and not terminal.confirm(f"Take {name} back to the seal it had?"):
        raise ChangeRefused(
            "nothing was changed", "you did not say yes", "run it again and say y, or add --yes"
        )
    session.call("server-migrate-back", server=name)


def _go_on(session: Session, name: str, *, wait: bool, token: str, restarted: bool) -> None:
    """Go on as far as it goes; with ``wait`` until the end."""
    asked = {"server": name, "token": token, "restarted": restarted}
    told = session.call("server-migrate", **asked, wait_s=0)
    while wait and not told["ended"]:
        if not terminal.as_json():
            moved.show(told)
        known = told["state"]
        while not told["ended"] and told["state"] == known:
            told = session.call("server-migrate", **asked, wait_s=WAIT_S, known=known)
    _finish(_declared(session, told))


def _declared(session: Session, told: dict[str, Any]) -> dict[str, Any]:
    """Have kluis.toml name the shares as what they are now, where it can be edited."""
    if (rename := told["rename"]) and declaring.rename(session, told["server"], **rename):
        fresh = session.call("server-migration", server=told["server"])
        return {**told, "notes": fresh["notes"], "rename": fresh["rename"]}
    return told


def _finish(told: Mapping[str, Any]) -> None:
    """Print where it stands, and end with the code for it."""
    if terminal.as_json():
        terminal.data(told)
    else:
        moved.show(told)
    raise typer.Exit(0 if told["ended"] else 2)

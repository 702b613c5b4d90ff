"""``kluis server generate-root|rekey|rotate``: a server's keys, renewed out of its shares."""

from __future__ import annotations

from typing import Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.server.ceremony import Name, Shares, Threshold, Yes
from kluis.cli.session import Session
from kluis.errors import ChangeRefused, UsageError

TokenOnInput = Annotated[
    bool,
    typer.Option("--token-stdin", help="Read a token from standard input; else from BAO_TOKEN."),
]
CancelOther = Annotated[
    bool, typer.Option("--cancel-other", help="Cancel what somebody else has begun.")
]


def generate_root(
    name: Name,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    token_stdin: TokenOnInput = False,
    cancel_other: CancelOther = False,
) -> None:
    """Print a new root token, made out of the shares that are kept.

    It goes to standard output and nowhere else, and the audit log of kluis records it. Revoke it
    when the work is done: bao token revoke -self. A newer OpenBao wants a token for this, too.

    Example: kluis server generate-root old-vault
    """
    found = Session(config).call(
        "server-generate-root", server=name, token=_token(token_stdin), cancel_other=cancel_other
    )
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.line(found["token"])
    terminal.note(f"this is a root token of {name}: it does not expire; bao token revoke -self")


def _token(on_input: bool) -> str:
    """A token from standard input or the environment; empty where there is none."""
    import os

    if not on_input:
        return os.environ.get("BAO_TOKEN") or os.environ.get("VAULT_TOKEN") or ""
    for line in terminal.secret_lines("token: "):
        return line.strip()
    raise UsageError(
        "standard input has no token", "--token-stdin reads one line", "give it, or leave that out"
    )


def rekey(
    name: Name,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    shares: Shares = None,
    threshold: Threshold = None,
    token_stdin: TokenOnInput = False,
    cancel_other: CancelOther = False,
    yes: Yes = False,
) -> None:
    """Make new shares for a server; they are in the keyring before they are valid.

    While it is under way both sets are kept. Interrupted anywhere, run it again: it finds out
    which set the server takes. Without --shares and --threshold their numbers stay as they are.

    Example: kluis server rekey old-vault --shares 3 --threshold 2
    """
    session = Session(config)
    asked = {
        "server": name,
        "shares": shares,
        "threshold": threshold,
        "token": _token(token_stdin),
        "cancel_other": cancel_other,
    }
    found = session.call("server-rekey", **asked, look=True)
    numbers = f"{found['shares']} shares, {found['threshold']} needed"
    question = f"rekey {name} to {numbers}? shares that people have are void then."
    if not yes and not terminal.confirm(question):
        raise ChangeRefused(
            "nothing was done", "you did not say yes", "run it again and say y, or add --yes"
        )
    found = session.call("server-rekey", **asked)
    if terminal.as_json():
        terminal.data(found)
        return
    for step in found["steps"]:
        terminal.line(step)
    if found["declared_otherwise"]:
        terminal.line(
            f"kluis.toml declares other numbers in [servers.{name}]: correct threshold and shares,"
            " or kluis watch takes it for another server"
        )
    terminal.line("back up the keyring now")


def rotate(
    name: Name,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    token_stdin: TokenOnInput = False,
) -> None:
    """Give a server a new key for what it writes from now on (sys/rotate).

    Takes the token that is given, else the root token that is kept; else it makes one out of the
    shares, and revokes it afterwards.

    Example: kluis server rotate old-vault
    """
    found = Session(config).call("server-rotate", server=name, token=_token(token_stdin))
    if terminal.as_json():
        terminal.data(found)
        return
    whose = {
        "given": "with the token that was given",
        "kept": "with the root token that is kept",
        "made": "with a root token made for it, which is revoked",
    }
    terminal.line(f"{name} writes with key {found['term']} now, {whose[found['token']]}")

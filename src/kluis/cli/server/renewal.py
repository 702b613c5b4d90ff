"""``kluis server generate-root|rekey|rotate``: a server's keys, renewed out of its shares."""

from __future__ import annotations

from typing import Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.server import declaring
from kluis.cli.server.ceremony import Name, Shares, Threshold, Yes
from kluis.cli.server.tokens import TokenOnInput, token
from kluis.cli.session import Session
from kluis.errors import ChangeRefused

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
    when the work is done: bao token revoke -self. A newer OpenBao wants a token for this, too:
    in BAO_TOKEN or VAULT_TOKEN, if BAO_ADDR or VAULT_ADDR names this server or is not set.

    Example: kluis server generate-root old-vault
    """
    session = Session(config)
    given = token(session, name, on_input=token_stdin)
    found = session.call(
        "server-generate-root", server=name, token=given, cancel_other=cancel_other
    )
    if terminal.as_json():
        terminal.data(found)
        return
    terminal.line(found["token"])
    terminal.note(f"this is a root token of {name}: it does not expire; bao token revoke -self")


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
    A newer OpenBao wants a token for this: in BAO_TOKEN or VAULT_TOKEN, if BAO_ADDR or VAULT_ADDR
    names this server or is not set.

    Example: kluis server rekey old-vault --shares 3 --threshold 2
    """
    session = Session(config)
    asked = {
        "server": name,
        "shares": shares,
        "threshold": threshold,
        "token": token(session, name, on_input=token_stdin),
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
    now = {field: found[field] for field in ("threshold", "shares")}
    if found["declared_otherwise"] and declaring.set_numbers(session, name, now):
        found["declared_otherwise"] = False
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
    cancel_other: CancelOther = False,
) -> None:
    """Give a server a new key for what it writes from now on (sys/rotate).

    Takes the token that is given (--token-stdin; else BAO_TOKEN or VAULT_TOKEN, if BAO_ADDR or
    VAULT_ADDR names this server or is not set), else the root token that is kept; else it makes
    one out of the shares, and revokes it afterwards. A newer OpenBao makes none for shares alone.

    Example: kluis server rotate old-vault
    """
    session = Session(config)
    given = token(session, name, on_input=token_stdin)
    found = session.call("server-rotate", server=name, token=given, cancel_other=cancel_other)
    if terminal.as_json():
        terminal.data(found)
        return
    whose = {
        "given": "with the token that was given",
        "kept": "with the root token that is kept",
        "made": "with a root token made for it, which is revoked",
    }
    terminal.line(f"{name} writes with key {found['term']} now, {whose[found['token']]}")

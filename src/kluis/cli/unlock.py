"""``kluis unlock`` and ``kluis lock``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.cli.status import EXIT_LOCKED, Keyring, ways
from kluis.errors import KluisError

Passphrase = Annotated[
    str,
    typer.Option(
        "--passphrase", metavar="ANCHOR", help="Enter the passphrase of this anchor, not shares."
    ),
]
Anchors = Annotated[
    bool, typer.Option("--anchors", help="Read no shares: only ask the anchors again, at once.")
]


def unlock(
    keyring: Keyring,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    passphrase: Passphrase = "",
    anchors: Anchors = False,
) -> None:
    """Open a keyring in the running service: with people's paper shares, or by its anchors.

    Shares are read from a prompt without echo, or from standard input, one a line; several people
    can run this one after another. An empty line ends. Without a share the anchors are asked again,
    at once.

    Example: kluis unlock homelab
    """
    session = Session(config)
    found = session.call_service("progress", keyring=keyring)
    failure: KluisError | None = None
    if found["keyring"]["state"] != "open" and not anchors:
        found, failure = _enter(session, keyring, passphrase, found)
    if found["keyring"]["state"] != "open" and failure is None and not found["entered"]:
        found = session.call_service("unlock", keyring=keyring)
    opened = found["keyring"]["state"] == "open"
    if failure is not None and not opened:
        raise failure
    if terminal.as_json():
        terminal.data({keyring: {**found["keyring"], "progress": found["progress"]}})
    elif opened:
        terminal.line(f"{keyring} is open")
    else:
        _still_locked(keyring, found)
    if not opened:
        raise typer.Exit(EXIT_LOCKED)


def _enter(
    session: Session, keyring: str, passphrase: str, found: dict[str, Any]
) -> tuple[dict[str, Any], KluisError | None]:
    """Enter line after line until it is open; the last state, and the last line's error."""
    failure: KluisError | None = None
    what = f"passphrase of {passphrase}: " if passphrase else f"share for {keyring}: "
    for text in terminal.secret_lines(what):
        if failure is not None:  # of several lines, the last one's is the command's own error
            _not_taken(failure)
        failure = None
        try:
            found = session.call_service("unlock", keyring=keyring, **_args(passphrase, text))
        except KluisError as error:
            if terminal.interactive():
                _not_taken(error)
            else:
                failure = error
            continue
        if found["keyring"]["state"] == "open":
            break
        _progress(found)
    return found, failure


def _not_taken(failure: KluisError) -> None:
    terminal.note(f"not taken: {failure.seen} ({failure.next_step})")


def _args(passphrase: str, text: str) -> dict[str, str]:
    if passphrase:
        return {"anchor": passphrase, "passphrase": text}
    from kluis.keyring import paper

    paper.read(text)  # a typing slip is told here, before anything crosses the socket
    return {"share": text}


def _progress(found: dict[str, Any]) -> None:
    entered = found["entered"]
    if entered in found["progress"]:
        count, needed = found["progress"][entered]
        terminal.note(f"{entered}: {count} of {needed} shares")


def _still_locked(keyring: str, found: dict[str, Any]) -> None:
    lacking = ways(found["keyring"])
    said = f"; it would open with {lacking}" if lacking else ""
    terminal.line(f"{keyring} is still locked{said}")


def lock(keyring: Keyring, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Drop a keyring's secrets from the running service; only unlock or a restart opens it again.

    Servers that run keep running; servers that restart wait.

    Example: kluis lock homelab
    """
    found = Session(config).call_service("lock", keyring=keyring)
    if terminal.as_json():
        terminal.data({keyring: found["keyring"]})
    else:
        terminal.line(f"{keyring} is locked; kluis unlock {keyring} opens it again")

"""``kluis key import --shares``: the shares of a server, taken into a keyring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kluis.cli import material, terminal
from kluis.cli.session import Session
from kluis.errors import UsageError


@dataclass(frozen=True, slots=True)
class Given:
    """What the options say. ``source`` is ``-`` for standard input, else a file."""

    source: str | None
    file: Path | None
    threshold: int | None
    recovery: bool
    replace: bool


def take(session: Session, key: str, given: Given) -> None:
    """Import the shares, and say what is kept then. Raises KluisError."""
    from kluis.keyring.custody import MAX_INPUT_BYTES

    if given.source is None or given.file is not None:
        raise UsageError(
            "--threshold and --recovery go with --shares, and --file does not",
            "shares and a Transit key are imported in different ways",
            "kluis key import KEYRING/KEY --shares - takes shares on standard input",
        )
    found = session.call(
        "shares-import",
        key=key,
        shares=material.shares(given.source, MAX_INPUT_BYTES),
        threshold=given.threshold,
        recovery=given.recovery,
        replace=given.replace,
    )
    if terminal.as_json():
        terminal.data(found)
        return
    what = "recovery keys" if given.recovery else "shares"
    kept = f"{found['shares']} {what}, {found['threshold']} needed"
    if not found["changed"]:
        terminal.line(f"{key} keeps them already ({kept}); nothing was changed")
        return
    place = ", in place of the others" if found["replaced"] else ""
    terminal.line(f"{key} keeps {kept}{place}")
    if not found["proven"]:
        terminal.line(
            "whether they belong together shows only with one more share, or at the first unseal"
        )
    if not found["servers"] and not given.recovery:
        terminal.line(f'no server uses them yet: unseal = "{key}" in [servers.NAME]')
    terminal.line("back up the keyring now")

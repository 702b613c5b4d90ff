"""What commands change in kluis.toml of a declared server, and the running service takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kluis.cli import terminal
from kluis.cli.session import Session
from kluis.errors import KluisError, NotRunning

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile


def reload(session: Session) -> bool:
    """Whether a running service took the new configuration."""
    if not session.file.settings.keyrings:  # then none can run
        return False
    try:
        session.call_service("reload")
    except NotRunning:
        return False
    except KluisError as error:
        terminal.note(f"the running service did not take it: {error.seen}")
        return False
    return True


def rename(session: Session, name: str, old: str, new: str) -> bool:
    """Have a field of ``[servers.NAME]`` under another name; whether it is so now."""
    from kluis.settings import editing

    def edited(file: ConfigurationFile) -> str:
        said = file.settings.servers.get(name)
        there = said is not None and getattr(said, old) is not None
        return editing.renamed(file.text, name, old, new) if there else file.text

    return _change(session, edited, f"{old} of [servers.{name}] is {new} now")


def set_numbers(session: Session, name: str, numbers: Mapping[str, int]) -> bool:
    """Have those numbers of a server as they are that are declared; whether it is so now."""
    from kluis.settings import editing

    def edited(file: ConfigurationFile) -> str:
        said = file.settings.servers.get(name)
        stale = {field: now for field, now in numbers.items() if getattr(said, field, None)}
        return editing.with_server(file.text, name, stale) if stale else file.text

    return _change(session, edited, f"[servers.{name}] has the numbers of its new shares now")


def _change(session: Session, edited: Callable[[ConfigurationFile], str], words: str) -> bool:
    """Write kluis.toml anew, unless it has all of it already, and have the service take it."""
    from kluis import configuration

    try:
        file = configuration.read(session.path)  # as it is now: a person may have been at it
        if (text := edited(file)) != file.text:
            configuration.write(file, text)
    except KluisError as error:
        terminal.note(f"{session.path.name} was not changed: {error.seen}")
        return False
    terminal.note(f"{session.path.name}: {words}")
    reload(session)
    return True

"""A server as it is to be declared: what kluis.toml says of it, and what the options ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kluis.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile
    from kluis.servers.declared import Server
    from kluis.settings.editing import Value
    from kluis.settings.servers import ServerSettings


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command; None and empty where they were not given."""

    address: tuple[str, ...]
    dns: str | None
    ca: Path | None
    server_name: str | None
    unseal: str | None
    recovery: str | None


def declared(file: ConfigurationFile, name: str, asked: Options) -> tuple[ServerSettings, Server]:
    """The server as it will be declared with what is asked for. Raises KluisError."""
    from kluis.compose.servers import servers

    old = file.settings.servers.get(name)
    read = _candidate(file, name, _asked(file, name, old, asked))
    said = read.settings.servers[name]
    server = servers(read)[name]
    if has_own_file(read, name, said) and not read.resolve(Path(f"{name}.crt")).exists():
        server = replace(server, tls=replace(server.tls, ca=None))
    return said, server


OWN_FILE_MARK = b"# the server's own certificate, written by kluis server add\n"
"""The first line of a file that may be written anew; PEM begins after it."""


def has_own_file(file: ConfigurationFile, name: str, said: ServerSettings) -> bool:
    """Whether it is believed by the file that an earlier ``kluis server add`` wrote, if any is."""
    return said.ca == Path(f"{name}.crt") and may_be_written(file.resolve(said.ca))


def may_be_written(own_file: Path) -> bool:
    """Whether a file is not there, or an earlier ``kluis server add`` wrote it."""
    try:
        with own_file.open("rb") as there:
            return there.read(len(OWN_FILE_MARK)) == OWN_FILE_MARK
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _asked(
    file: ConfigurationFile, name: str, old: ServerSettings | None, asked: Options
) -> dict[str, Value]:
    """The fields that the options ask for, and that are not so already."""
    fields = _where(name, old, asked)
    wanted = {
        "server_name": asked.server_name,
        "ca": None if asked.ca is None else _as_written(file, asked.ca),
        "unseal": asked.unseal,
        "recovery": asked.recovery,
    }
    for field, value in wanted.items():
        if value is not None and (old is None or value != text(getattr(old, field))):
            fields[field] = value
    return fields


def _where(name: str, old: ServerSettings | None, asked: Options) -> dict[str, Value]:
    """Where a new server is reached; a declared one stays where it is. Raises UsageError."""
    from kluis.keyring.policy import NAME_PATTERN

    if re.fullmatch(NAME_PATTERN, name) is None:
        raise UsageError(
            f"{name!r} can't be the name of a server",
            "a name has small letters, digits and -, a letter first",
            "choose another one",
        )
    if old is None and not asked.address and asked.dns is None:
        raise UsageError(
            f"where {name} is reached is not known",
            f"kluis.toml has no [servers.{name}] yet",
            "name its nodes: --address https://host:8200, or --dns host:8200",
        )
    if old is None:
        given: dict[str, Value | None] = {"addresses": asked.address or None, "dns": asked.dns}
        return {field: value for field, value in given.items() if value is not None}
    if asked.address not in ((), old.addresses) or asked.dns not in (None, old.dns):
        raise UsageError(
            f"{name} is declared already, with other addresses",
            "what stands there about its addresses is yours",
            f"change [servers.{name}] in kluis.toml yourself, then run it without them",
        )
    return {}


def text(value: object) -> str | None:
    """A field of the settings as it is written."""
    return None if value is None else str(value)


def _as_written(file: ConfigurationFile, path: Path) -> str:
    """A path of the command line as kluis.toml has it: from its folder on, or absolute."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are named
    folder = file.path.parent
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)


def _candidate(
    file: ConfigurationFile, name: str, fields: Mapping[str, Value]
) -> ConfigurationFile:
    from kluis import configuration
    from kluis.settings import editing

    if not fields:
        return file
    try:
        return configuration.parse(file.path, editing.with_server(file.text, name, fields))
    except SettingsError as error:
        raise UsageError(
            f"with these options it would read: {error.seen}", error.means, error.next_step
        ) from None

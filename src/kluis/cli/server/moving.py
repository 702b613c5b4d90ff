"""What ``kluis server migrate`` does with files and the network itself: stanzas and the snapshot.

The service has the shares and never sees these; here are the paths and tokens of a person.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kluis.cli import terminal
from kluis.errors import KluisError, SettingsError, UsageError, WriteFailed

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile
    from kluis.servers.migration.hcl import Stanza

ANY_HOST: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - these are told apart, not listened on
_BEYOND_US: Final = ("namespace", "tls_skip_verify", "tls_client_cert", "tls_server_name")


def stanza(file: Path | None) -> Stanza | None:
    """The seal stanza in a file; None without a file, or without a stanza. Raises UsageError."""
    from kluis.servers.migration.hcl import MAX_CONFIG_BYTES, seal_of

    if file is None:
        return None
    try:
        with file.open("rb") as read:
            text = read.read(MAX_CONFIG_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}",
            "a seal stanza is read from it",
            "name the server's configuration, or a copy of it that you may read",
        ) from None
    return seal_of(text)


def facade_address(file: ConfigurationFile) -> str:
    """Where servers reach the facade. Raises SettingsError."""
    settings = file.settings.facade
    if settings is None:
        raise SettingsError(
            f"{file.path.name} has no [facade]",
            "there is nothing that a server could ask",
            "add [facade] with listen and tls",
        )
    if settings.known_as:
        return settings.known_as[0]
    if settings.address[0] in ANY_HOST:
        raise SettingsError(
            "where servers reach the facade is not known",
            f"it listens on {settings.listen}",
            'add address = "https://…" to [facade] of kluis.toml',
        )
    return f"{'http' if settings.tls == 'off' else 'https'}://{settings.listen}"


def probe(old: Stanza | None) -> dict[str, str]:
    """What the Transit of the old stanza makes of some random text; nothing where it can't be had.

    It shows whether kluis has the same key.
    """
    import asyncio

    if old is None or old.kind != "transit" or any(name in old.fields for name in _BEYOND_US):
        return {}
    try:
        return asyncio.run(_encrypted(old.fields))
    except KluisError as error:
        terminal.note(f"whether kluis has the key of its seal was not found out: {error.seen}")
        return {}


async def _encrypted(fields: Mapping[str, str]) -> dict[str, str]:
    import base64

    from kluis.servers.client import ServerClient
    from kluis.servers.tls import ServerTls

    plaintext = secrets.token_urlsafe(24)
    ca = Path(fields["tls_ca_cert"]) if fields.get("tls_ca_cert") else None
    path = f"{fields.get('mount_path', 'transit').strip('/')}/encrypt/{fields.get('key_name', '')}"
    body = {"plaintext": base64.b64encode(plaintext.encode()).decode()}
    async with ServerClient(fields.get("address", ""), tls=ServerTls(ca)) as client:
        answer = await client.call("PUT", path, body, token=fields.get("token", ""))
    data = answer.body.get("data")
    found = data.get("ciphertext") if isinstance(data, dict) else None
    return {"plaintext": plaintext, "ciphertext": found} if isinstance(found, str) else {}


def make_folder(folder: Path) -> None:
    """A folder for the files, for its owner only. Raises WriteFailed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(folder, error) from None


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the stanzas, 0600, over older ones. Raises WriteFailed."""
    for name, text in files.items():
        path = folder / name
        try:
            path.unlink(missing_ok=True)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as out:
                out.write(text)
        except OSError as error:
            raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> WriteFailed:
    return WriteFailed(
        f"{path} can't be written: {error.strerror or 'refused'}",
        "the stanzas and the snapshot go there",
        "name another folder with --out",
    )


def take_snapshot(file: ConfigurationFile, server: str, address: str, token: str, to: Path) -> int:
    """A snapshot of a server, from its active node; how many bytes. Raises KluisError."""
    import asyncio

    from kluis.compose.servers import servers
    from kluis.servers.ceremony.nodes import refuse_unknown
    from kluis.servers.migration import snapshot

    declared = servers(file)[server]
    refuse_unknown(declared, address)
    return asyncio.run(snapshot.take(address, declared.tls, token, to))

"""``kluis sidecar``: the keyring beside a server, in a container or a unit of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kluis.addresses import host_of, is_loopback
from kluis.cli import terminal
from kluis.cli.options import Config, Format, Rollback
from kluis.cli.serve import read, serve, start
from kluis.errors import SettingsError, UnknownKey, UsageError

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile
    from kluis.service.house import House
    from kluis.service.key_files import KeyFiles

Key = Annotated[str | None, typer.Option("--key", metavar="KEYRING/KEY", help="A static-seal key.")]
To = Annotated[
    Path | None,
    typer.Option("--to", metavar="FILE", help="Where the server reads the key; on a tmpfs."),
]
Reader = Annotated[
    str | None,
    typer.Option("--owner", metavar="UID:GID", help="Who may read it: UID, UID:GID or :GID."),
]
AllowDisk = Annotated[bool, typer.Option("--allow-disk", help="FILE need not be on a tmpfs.")]
Address = Annotated[
    str,
    typer.Option(help="Where the server beside it answers, on loopback.", envvar="BAO_ADDR"),
]


def sidecar(
    key: Key = None,
    to: To = None,
    owner: Reader = None,
    allow_disk: AllowDisk = False,
    address: Address = "http://127.0.0.1:8200",
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    accept_rollback: Rollback = False,
) -> None:
    """Open the keyring, and hand a server beside it its seal, until told to stop.

    With --key and --to: the key of a static seal is in FILE while the server needs it, with the
    stanza beside it (seal.hcl for seal.key): bao server -config=bao.hcl -config=seal.hcl. When the
    server is active the files are removed; when it goes away they are written again. The file
    "ready" beside them is there while the keyring is open.

    Without them: the facade, which has to listen on loopback, for servers on seal "transit".

    The log is JSON lines on standard error.

    Example: kluis sidecar --key homelab/unseal --to /run/kluis/seal.key
    """
    import uvloop

    file = read(config)
    if key is None and to is None:
        _refuse_beyond_loopback(file)
        serve(config, output, accept_rollback)
        return
    if key is None or to is None:
        raise UsageError(
            "--key and --to go together",
            "one says which key, the other where the server reads it",
            "name both; or neither, to serve the facade",
        )
    _refuse_elsewhere(address)
    from kluis.service import key_files

    of = key_files.Owner() if owner is None else key_files.owner(owner)
    files = key_files.KeyFiles(to, of, allow_disk=allow_disk)
    uvloop.run(_key(file, key, files, address, accept_rollback))


async def _key(
    file: ConfigurationFile, key_path: str, files: KeyFiles, address: str, accept_rollback: bool
) -> None:
    from kluis.servers.notify import Notifier
    from kluis.service.control import ControlServer
    from kluis.service.serve import serve as serve_until_told
    from kluis.service.sidecar import Keeper

    house, log = start(file, accept_rollback)
    keyring, _, key = key_path.partition("/")
    _refuse_unknown(house, keyring, key)
    notifier = Notifier.from_environment(os.environ)
    keeper = Keeper(house.guard(keyring), key, files, address, log, notifier)
    control = ControlServer(house, file.control_path())
    await serve_until_told(house, [keeper.run(), control.serve()], log, Notifier(None))


def _refuse_elsewhere(address: str) -> None:
    """Another node's answer says nothing about what the server beside it needs."""
    try:
        beside = is_loopback(host_of(address))
    except ValueError:  # no URL at all
        beside = False
    if not beside:
        raise UsageError(
            "the address of the server is not a URL on loopback",
            "a sidecar's server is beside it; another one may be unsealed while this one waits",
            "correct --address or BAO_ADDR: http://127.0.0.1:8200, say",
        )


def _refuse_beyond_loopback(file: ConfigurationFile) -> None:
    settings = file.settings.facade
    if settings is None or not is_loopback(settings.address[0]):
        raise SettingsError(
            f"{file.path.name} has no [facade] on loopback",
            "a sidecar serves the server beside it, and nobody else",
            'add [facade] with listen = "127.0.0.1:8300"; or use kluis serve',
        )


def _refuse_unknown(house: House, keyring: str, key: str) -> None:
    entry = house.guard(keyring).document.keys.get(key)
    if entry is None or entry.kind != "static-seal":
        raise UnknownKey(
            f"{keyring} has no static-seal key {key or '?'}",
            "a static seal takes a key of this kind",
            "kluis key list shows the keys",
        )

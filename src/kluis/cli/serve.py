"""``kluis serve`` and ``kluis run``: the service, alone or with a server of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kluis import locating
from kluis.cli import terminal
from kluis.cli.options import Config, Format, Rollback
from kluis.errors import NotFound, SettingsError, UnknownKey

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile
    from kluis.service.control import ControlServer
    from kluis.service.house import House
    from kluis.service.run import Supervised

Key = Annotated[str, typer.Option("--key", metavar="KEYRING/KEY", help="The server's seal key.")]
Command = Annotated[list[str], typer.Argument(metavar="-- CMD…", help="The server to run.")]
Address = Annotated[
    str,
    typer.Option(help="Where the server answers, to tell when it is active.", envvar="BAO_ADDR"),
]
Restarts = Annotated[
    int, typer.Option(min=0, help="How often within a minute a dead server is started again.")
]


def serve(
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    accept_rollback: Rollback = False,
) -> None:
    """Open what can be opened, listen, and serve until told to stop.

    The log is JSON lines on standard error. SIGHUP reads the configuration again; TLS files are
    read again when they change. Declared servers are watched as by kluis watch.

    Example: kluis serve --config /etc/kluis/kluis.toml
    """
    import uvloop

    uvloop.run(_serve(read(config), accept_rollback))


def run(
    command: Command,
    key: Key,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    address: Address = "http://127.0.0.1:8200",
    restarts: Restarts = 5,
    accept_rollback: Rollback = False,
) -> None:
    """Run a server with its seal in one process tree, and end with its exit code.

    A key of kind transit serves an empty stanza, seal "transit" {}: address, token and key come
    by environment. A key of kind static-seal is handed over in memory. Works as PID 1.

    Example: kluis run --key homelab/bletchley -- bao server -config=bao.hcl
    """
    import uvloop

    from kluis.servers.supervise import RestartLimit

    server = {"argv": command, "address": address, "limit": RestartLimit(restarts)}
    raise typer.Exit(uvloop.run(_run(read(config), key, server, accept_rollback)))


def read(config: Path | None) -> ConfigurationFile:
    """The configuration. Raises SettingsError."""
    from kluis import configuration

    return configuration.read(locating.find(config))


def start(file: ConfigurationFile, accept_rollback: bool) -> tuple[House, Any]:
    """Harden the process, take the folders, load the keyrings; and the log.

    Raises KluisError, NotFound among it when there is no keyring.
    """
    from kluis import compose, telemetry
    from kluis.service.harden import harden

    log = telemetry.logger()
    for words in harden():
        log.warning("hardening", seen=words)
    house = compose.house(file, alone=True, accept_rollback=accept_rollback, log=log)
    if not house.guards:
        raise NotFound(
            "none of the keyrings was made yet", "there is nothing to serve", "run kluis apply"
        )
    return house, log


async def _serve(file: ConfigurationFile, accept_rollback: bool) -> None:
    from kluis import compose
    from kluis.compose import watching
    from kluis.facade.server import FacadeServer
    from kluis.servers.notify import Notifier
    from kluis.service.control import ControlServer
    from kluis.service.serve import serve as serve_until_told

    settings = file.settings.facade
    if settings is None:
        raise SettingsError(
            f"{file.path.name} has no [facade]",
            "there is nowhere to listen",
            "add [facade] with listen and tls; without one, kluis watch or kluis run",
        )
    house, log = start(file, accept_rollback)
    tls = compose.tls_files(file, settings)
    facade = compose.facade(file, house, {})
    if house.blueprint.servers:
        watching.watching(house, log, facade.metrics.add)
    listening = [FacadeServer(facade, *settings.address, tls, log)]
    listening += watching.monitors(file, house, log)
    control = ControlServer(house, file.control_path())
    log.info("listening", address=settings.listen, tls=tls is not None)
    parts = [*(server.serve() for server in listening), control.serve()]
    parts.append(watching.watch_declared(house, log, facade.metrics.add))
    notifier = Notifier.from_environment(os.environ)
    await serve_until_told(house, parts, log, notifier)


async def _run(
    file: ConfigurationFile, key_path: str, server: Mapping[str, Any], accept_rollback: bool
) -> int:
    from kluis import compose
    from kluis.service.control import ControlServer
    from kluis.service.run import Supervised, run_static

    house, log = start(file, accept_rollback)
    keyring, _, key = key_path.partition("/")
    kind = _seal_kind(house, keyring, key)
    supervised = Supervised(**server, log=log, hidden=compose.anchor_variables(file))
    control = ControlServer(house, file.control_path())
    if kind == "static-seal":
        return await run_static(house, [control.serve()], supervised, house.guard(keyring), key)
    return await _run_transit(file, house, control, supervised, (keyring, key))


async def _run_transit(
    file: ConfigurationFile,
    house: House,
    control: ControlServer,
    supervised: Supervised,
    key_path: tuple[str, str],
) -> int:
    from kluis import compose
    from kluis.facade.server import FacadeServer
    from kluis.servers.handoff import transit_handoff
    from kluis.service.run import private_client, run_transit

    token, private = private_client(*key_path)
    facade = compose.facade(file, house, private)
    listening = FacadeServer(facade, "127.0.0.1", 0, None, supervised.log)
    address = f"http://127.0.0.1:{listening.address[1]}"
    handoff = transit_handoff(address, token, key=key_path[1], mount=f"{key_path[0]}/")
    return await run_transit(house, [listening.serve(), control.serve()], supervised, handoff)


def _seal_kind(house: House, keyring: str, key: str) -> str:
    entry = house.guard(keyring).document.keys.get(key)
    if entry is None or entry.kind not in ("transit", "static-seal"):
        raise UnknownKey(
            f"{keyring} has no key {key or '?'} that a seal could use",
            "a seal uses a key of kind transit or static-seal",
            "kluis key list shows the keys",
        )
    return entry.kind

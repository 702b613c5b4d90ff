"""``kluis watch``: declared servers kept unsealed, for good or in one pass."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format, Rollback
from kluis.cli.serve import read, start
from kluis.cli.server import shown
from kluis.cli.session import Session

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile

_CODES: Final = {"unsealed": 0, "sealed": 2, "alarm": 1}

Once = Annotated[
    bool, typer.Option("--once", help="Look once, unseal what is sealed, say how all are, and end.")
]


def watch(
    once: Once = False,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    accept_rollback: Rollback = False,
) -> None:
    """Keep every declared server unsealed, and wake what waited for it, until told to stop.

    The log is JSON lines on standard error. SIGHUP reads the configuration again. With --once the
    exit code is 0: all unsealed, 2: some are sealed, 1: one needs a person, or an error. Where a
    service runs that one does it.

    Example: kluis watch --once
    """
    if once:
        found = Session(config, accept_rollback=accept_rollback).call("watch-once")
        if terminal.as_json():
            terminal.data(found)
        else:
            shown.servers(found["servers"], watched=found["watched"])
            shown.outcomes(found["outcomes"])
        raise typer.Exit(_CODES[found["state"]])
    import uvloop

    uvloop.run(_watch(read(config), accept_rollback))


async def _watch(file: ConfigurationFile, accept_rollback: bool) -> None:
    from kluis.compose import watching
    from kluis.servers.notify import Notifier
    from kluis.service.control import ControlServer
    from kluis.service.serve import serve as serve_until_told
    from kluis.service.watch.waking import nothing_to_watch

    if not file.settings.servers:
        raise nothing_to_watch()
    house, log = start(file, accept_rollback)
    watched = watching.watching(house, log)
    listening = watching.monitors(file, house, log)
    control = ControlServer(house, file.control_path())
    log.info("watching", servers=sorted(house.blueprint.servers))
    parts = [*(server.serve() for server in listening), control.serve(), watched.run()]
    await serve_until_told(house, parts, log, Notifier.from_environment(os.environ))

"""The watching of a process, and where it tells of it, from settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client.registry import Collector

from kluis.addresses import split_address
from kluis.configuration import ConfigurationFile
from kluis.errors import KluisError

if TYPE_CHECKING:
    from kluis.facade.server import FacadeServer
    from kluis.service.house import House
    from kluis.service.watch.watching import Watching


Tell = Callable[[Collector], None]
"""Gets what the metrics are read off."""


def watching(house: House, log: Any, tell: Tell = lambda _: None) -> Watching:
    """Lets a house watch its servers; the caller runs it. Raises KluisError."""
    from kluis.service.watch.watching import Watching

    made = Watching(house, log)
    house.watch(made)
    tell(made.metrics)
    return made


async def watch_declared(house: House, log: Any, tell: Tell) -> None:
    """Watch until cancelled, as soon as a server is declared, be it by a reload."""
    while (found := house.watching) is None:
        house.redrawn.clear()
        try:
            if house.blueprint.servers:
                watching(house, log, tell)
                continue
        except KluisError as error:  # not the end of those who are served already
            log.error("not watched", seen=error.seen, means=error.means, next=error.next_step)
        await house.redrawn.wait()
    await found.run()


def monitors(file: ConfigurationFile, house: House, log: Any) -> list[FacadeServer]:
    """Where the watching tells metrics and health: at ``[watch] listen``, if that is there.

    Raises ListenFailed.
    """
    if file.settings.watch.listen is None or house.watching is None:
        return []
    from kluis.facade.server import FacadeServer
    from kluis.service.watch.monitor import Monitor

    address = split_address(file.settings.watch.listen)
    log.info("listening", address=file.settings.watch.listen, tls=False)
    return [FacadeServer(Monitor(house, house.watching), *address, None, log, "watch.listen")]

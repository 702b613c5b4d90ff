"""``server-wake`` and ``watch-once``: what the watching does by itself, at a person's word."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from kluis.errors import KluisError, SettingsError, UsageError
from kluis.keyring.strict import JSON
from kluis.servers.declared import Server
from kluis.servers.watch.states import Alarm, Condition, NodeView
from kluis.service.house import House
from kluis.service.operations import Args, text
from kluis.service.servers import declared, shown
from kluis.wake.base import Recovered, Woken

if TYPE_CHECKING:
    from kluis.service.watch.watching import Watching

ONCE_S: Final = 60.0
"""How long one pass may take; a server's own unseal is in it."""
_SEALED: Final = (Condition.SEALED, Condition.HELD, Condition.UNSEALING)


async def server_wake(house: House, args: Args) -> dict[str, JSON]:
    """Run the hooks of a server now, as after a recovery, and wait for them."""
    server = declared(house, text(args, "server"))
    if not server.wake:
        raise UsageError(
            f"{server.name} wakes nothing",
            "no hook is declared for it",
            f"declare [wake.NAME], and name it in wake of [servers.{server.name}]",
        )
    async with _watching(house) as watching:
        recovery = Recovered(server, datetime.now(UTC), await _address(watching, server))
        outcomes = await watching.waker.wake_now(recovery)
    return {"server": server.name, "outcomes": _described(outcomes)}


async def _address(watching: Watching, server: Server) -> str:
    """Where the server works, else the first place where it could be."""
    if known := watching.address_of(server.name):
        return known
    with contextlib.suppress(KluisError):
        return next(iter(await server.discovery.addresses()), "")
    return ""


async def watch_once(house: House, args: Args) -> dict[str, JSON]:
    """Look at every server once, and unseal and wake as ``kluis watch`` does."""
    if not house.blueprint.servers:
        raise nothing_to_watch()
    if not house.serving:
        await house.open_once()
    async with _watching(house) as watching:
        views, outcomes = await watching.once(ONCE_S)
    servers: dict[str, JSON] = {name: shown(house, views[name]) for name in sorted(views)}
    nodes = [node for view in views.values() for node in view.nodes.values()]
    found = all(view.nodes for view in views.values())
    return {
        "state": verdict(nodes) if found and all(one.ok for one in outcomes) else "alarm",
        "servers": servers,
        "watched": house.watching is not None,
        "outcomes": _described(outcomes),
    }


def nothing_to_watch() -> SettingsError:
    """The error where no server is declared."""
    return SettingsError(
        "kluis.toml declares no server",
        "there is nothing to watch",
        "kluis server add NAME --address URL declares one",
    )


def verdict(nodes: Iterable[NodeView]) -> str:
    """In one word: ``unsealed``, ``sealed``, or ``alarm`` where a person must look at it.

    A locked keyring is no alarm here: like ``kluis status``, it is what a person unlocks.
    """
    states = {node.condition for node in nodes}
    alarms = {node.alarm for node in nodes} - {None, Alarm.LOCKED}
    if alarms or states - {Condition.UNSEALED, *_SEALED}:
        return "alarm"
    return "sealed" if states & {*_SEALED} else "unsealed"


def _described(outcomes: Iterable[Woken]) -> JSON:
    return [cast(JSON, woken.described()) for woken in outcomes]


@contextlib.asynccontextmanager
async def _watching(house: House) -> AsyncIterator[Watching]:
    """What watches in this process; where nothing does, something that does no more than this."""
    if house.watching is not None:
        yield house.watching
        return
    from kluis.service.watch.watching import Watching

    watching = Watching(house, log=None)
    try:
        yield watching
    finally:
        await watching.waker.close()

"""Watched servers in one process: the watcher, what is logged and counted of it, and the hooks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from kluis.servers.watch.states import Condition, NodeView, Recovery, ServerView
from kluis.servers.watch.watcher import Watcher
from kluis.service.blueprint import Blueprint
from kluis.service.custody import kept
from kluis.service.house import House
from kluis.service.servers import hold_of
from kluis.service.watch.metrics import WatchMetrics
from kluis.wake.base import Hook, Recovered, Woken
from kluis.wake.running import Outcomes, Waker

_AFTER_FAULT_S: Final = 1.0
_FIRST_S: Final = 1.0
_LOOK_S: Final = 0.05
_ON_ITS_WAY: Final = (Condition.UNKNOWN, Condition.UNSEALING, Condition.UNINITIALISED)


class Watching:
    """Watches the servers of a house, tells the log and the metrics, and wakes what waited."""

    def __init__(self, house: House, log: Any) -> None:
        """``log`` is a structlog logger, if any. Raises KluisError when a hook can't be made."""
        hooks = house.blueprint.hooks()
        self._house, self._log = house, log
        self.watcher = Watcher(
            house.blueprint.servers,
            partial(kept, house),
            lambda name: hold_of(house, name, time.time()),
            told=self,
        )
        self.waker = Waker(hooks, self._woken)
        self.metrics = WatchMetrics(self.watcher.views, _kinds(hooks))
        self._rounds: set[asyncio.Future[Outcomes]] = set()
        self._runs = False

    async def run(self) -> None:
        """Watch until cancelled; a fault of kluis is on record, and not the end."""
        self._runs = True
        try:
            await self._first_opening()
            while True:
                try:
                    await self.watcher.run()
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not be silent
                    self._say("error", "fault", part="watch", error=type(error).__name__)
                await asyncio.sleep(_AFTER_FAULT_S)
        finally:
            self._runs = False
            await self.waker.close()

    async def _first_opening(self) -> None:
        """Keyrings open with the process: to be a moment late is no alarm."""
        needed = {
            one.unseal.keyring for one in self._house.blueprint.servers.values() if one.unseal
        }
        guards = [guard for name, guard in self._house.guards.items() if name in needed]
        await asyncio.gather(*(guard.wait_open(_FIRST_S) for guard in guards))

    async def once(self, deadline_s: float) -> tuple[Mapping[str, ServerView], Outcomes]:
        """Look at all servers once and unseal what is sealed; then run what that wakes, to its end.

        How all servers are then, and what came of the hooks.
        """
        began = datetime.now(UTC)
        views = await (self._looked(deadline_s) if self._runs else self.watcher.once(deadline_s))
        if self._rounds:
            await asyncio.wait(self._rounds)  # who is told to hurry breaks off nobody's hooks
        outcomes = [one for past in self.waker.history().values() for one in past]
        return views, tuple(one for one in outcomes if one.at >= began)

    async def _looked(self, deadline_s: float) -> Mapping[str, ServerView]:
        """How all servers are once each of their nodes was looked at anew."""
        before = self.watcher.views()
        self.watcher.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                for name in before:
                    await self._settles(name, before[name].nodes.values())
        return self.watcher.views()

    async def _settles(self, name: str, before: Collection[NodeView]) -> None:
        while not _settled(self.watcher.views().get(name, ServerView(name)), before):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)  # the watcher tells of changes only

    def take(self, blueprint: Blueprint) -> None:
        """Watch and wake what this one declares. Raises KluisError; then all stays as it was."""
        hooks = blueprint.hooks()
        self.waker.use(hooks)
        self.metrics.know(_kinds(hooks))
        self.watcher.take(blueprint.servers)

    def address_of(self, server: str) -> str:
        """Of the node that does a server's work, else of one that is unsealed; empty for none."""
        view = self.watcher.views().get(server)
        nodes = [] if view is None else sorted(view.nodes.values(), key=_usefulness)
        return nodes[0].address if nodes else ""

    def _say(self, level: str, event: str, **fields: object) -> None:
        if self._log is not None:
            getattr(self._log, level)(event, **fields)

    # -- what the watcher tells

    def alarm(self, server: str, view: NodeView) -> None:
        """See Told."""
        self._say(
            "warning",
            "server alarm",
            server=server,
            node=view.address,
            alarm=None if view.alarm is None else view.alarm.value,
            seen=view.seen,
            means=view.means,
            next=view.next_step,
        )

    def settled(self, server: str, address: str) -> None:
        """See Told."""
        self._say("info", "server alarm over", server=server, node=address)

    def sent(self, server: str, address: str, count: int) -> None:
        """See Told."""
        self.metrics.sent(server, count)
        self._say("info", "shares sent", server=server, node=address, count=count)

    def changed(self, server: str, view: NodeView) -> None:
        """See Told."""
        about: dict[str, object] = {"seen": view.seen} if view.seen else {}
        if view.condition is Condition.UNSEALED:
            about["active"] = view.active
        where = {"server": server, "node": view.address}
        self._say("info", "server", **where, condition=view.condition.value, **about)

    def recovered(self, recovery: Recovery) -> None:
        """See Told. What waits for the server is woken, beside everything else."""
        self.metrics.recovered(recovery)
        listened = recovery.listening_s
        self._say(
            "info",
            "recovered",
            server=recovery.server,
            down_s=round(recovery.down_s, 3),
            listening_s=None if listened is None else round(listened, 3),
        )
        server = self._house.blueprint.servers.get(recovery.server)
        if server is not None and server.wake:
            back = Recovered(server, datetime.now(UTC), self.address_of(server.name))
            round_ = self.waker.recovered(back)
            self._rounds.add(round_)
            round_.add_done_callback(self._rounds.discard)

    def _woken(self, woken: Woken) -> None:
        self.metrics.woken(woken.hook, woken.kind, ok=woken.ok)
        about = {"server": woken.server, "hook": woken.hook, "kind": woken.kind}
        took = {"seconds": round(woken.seconds, 3)}
        if woken.failure is None:
            self._say("info", "woken", **about, **took)
        else:
            failure = woken.failure
            said = {"seen": failure.seen, "means": failure.means, "next": failure.next_step}
            self._say("warning", "not woken", **about, **took, **said)


def _usefulness(node: NodeView) -> tuple[bool, bool, str]:
    return not node.active, node.condition is not Condition.UNSEALED, node.address


def _settled(view: ServerView, before: Collection[NodeView]) -> bool:
    """Whether nothing more comes of waiting, and no node is as it was ``before`` the last look."""
    nodes = view.nodes.values()
    if not (nodes or view.seen):
        return False  # nobody looked where they are yet
    unsealed = any(node.condition is Condition.UNSEALED for node in nodes)
    electing = unsealed and view.down_since_s is not None
    on_its_way = any(node.alarm is None and node.condition in _ON_ITS_WAY for node in nodes)
    return not (electing or on_its_way or any(node is old for node in nodes for old in before))


def _kinds(hooks: Mapping[str, Hook]) -> list[tuple[str, str]]:
    return [(name, hook.kind) for name, hook in hooks.items()]

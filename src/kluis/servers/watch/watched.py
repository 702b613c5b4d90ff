"""One server: which nodes it has now, each in its own task, and whether it is down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from kluis.errors import KluisError
from kluis.servers.declared import Server
from kluis.servers.watch.downtime import Downtime
from kluis.servers.watch.evidence import Past
from kluis.servers.watch.fleet import Fleet
from kluis.servers.watch.node import UNKNOWN, Node
from kluis.servers.watch.states import Alarm, Condition, Hold, NodeView, ServerView
from kluis.servers.watch.told import Told

REFRESH_S: Final = 30.0
ASTRAY_S: Final = 1.0  # while no node is where it was
DISCOVERY_S: Final = 10.0
MOST_NODES: Final = 1024  # of one server: a name server may be anybody's


class Watched:
    """One server while it is watched."""

    def __init__(
        self, server: Server, fleet: Fleet, hold_of: Callable[[str], Hold | None], told: Told
    ) -> None:
        self.server = server
        self._fleet, self._hold_of, self._told = fleet, hold_of, told
        self._nodes: dict[str, Node] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._departed: dict[str, Past] = {}
        """What is known of nodes that left the list: one that comes back is not another one."""
        self._downtime = Downtime(server.name)
        self._discovering: asyncio.Task[None] | None = None
        self._discovered = False
        self._astray = asyncio.Event()
        self._hold: Hold | None = None
        self._down_since_s: float | None = None
        self._lost = ("", "", "")

    # -- what is known

    @property
    def view(self) -> ServerView:
        """How it is now."""
        nodes = {address: node.view for address, node in self._nodes.items()}
        return ServerView(self.server.name, nodes, self._hold, self._down_since_s, *self._lost)

    @property
    def settled(self) -> bool:
        """Whether nothing more comes of waiting for a moment."""
        nodes = self._nodes.values()
        may_elect = any(
            node.view.condition is Condition.UNSEALED and node.view.alarm is not Alarm.NO_LEADER
            for node in nodes
        )
        electing = may_elect and self._downtime.since_s is not None
        return self._discovered and not electing and all(node.settled for node in nodes)

    # -- its tasks

    def start(self) -> None:
        """Watch it from now on."""
        self._discovering = asyncio.create_task(self._discover())

    async def stop(self) -> None:
        """Watch it no longer."""
        if self._discovering is not None:
            self._discovering.cancel()
            self._ending.add(self._discovering)
        for task in self._tasks.values():
            task.cancel()
            self._ending.add(task)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def take(self, server: Server) -> None:
        """It is declared in another way now: a node is kept where that says nothing of it."""
        before, self.server = self.server, server
        if (before.tls, before.identity, before.unseal, before.on_seal) != (
            server.tls, server.identity, server.unseal, server.on_seal,
        ):  # fmt: skip
            self._departed.clear()
            for address in list(self._nodes):
                by_hand = self._nodes[address].lasting.by_hand
                self._leave(address)
                self._departed[address] = Past(by_hand=by_hand)  # the rest may be right now
                self._enter(address)
        if before.discovery != server.discovery:  # the old nodes are nobody's word any more
            for address in list(self._nodes):
                self._leave(address)
            self._discovered = False
        self._astray.set()

    def wake(self, *, release: bool) -> None:
        """Look again now; ``release``: unless it is held, it stays sealed by nobody's hand."""
        release = release and not self.held()
        for node in self._nodes.values():
            node.wake(release=release)

    async def _discover(self) -> None:
        while True:
            await self._refresh()
            self._fleet.stirred.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._astray.wait()
            self._astray.clear()
            await asyncio.sleep(ASTRAY_S)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(DISCOVERY_S):
                found = await self.server.discovery.addresses()
        except KluisError as error:
            self._lost = error.seen, error.means, error.next_step
        except Exception as error:  # noqa: BLE001 - the last known nodes hold, whatever it is
            seen = f"the nodes of {self.server.name} can't be found: {type(error).__name__}"
            self._lost = seen, "whoever knows them does not answer, or kluis has a fault", ""
        else:
            self._lost = ("", "", "")
            self._use(found)
        self._discovered = True

    def _use(self, found: Sequence[str]) -> None:
        wanted = dict.fromkeys(found[:MOST_NODES])
        for address in [address for address in self._nodes if address not in wanted]:
            self._leave(address)
        for address in wanted:
            if address not in self._nodes:
                self._enter(address)
        self._see()

    def _enter(self, address: str) -> None:
        known = self._departed.pop(address, UNKNOWN)
        node = self._nodes[address] = Node(self.server, address, self._fleet, self, known)
        self._tasks[address] = asyncio.create_task(node.run())

    def _leave(self, address: str) -> None:
        node, task = self._nodes.pop(address), self._tasks.pop(address)
        self._departed[address] = node.lasting
        while len(self._departed) > MOST_NODES:
            self._departed.pop(next(iter(self._departed)))
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        if node.view.alarm is not None:
            self._tell(lambda: self._told.settled(self.server.name, address))

    # -- what its nodes ask and tell

    @property
    def working(self) -> bool:
        """See Owner."""
        return any(
            node.view.condition is Condition.UNSEALED and node.view.active
            for node in self._nodes.values()
        )

    def held(self) -> bool:
        """See Owner."""
        hold = self._hold_of(self.server.name)
        over = (
            hold is not None and hold.until_s is not None and (hold.until_s <= self._fleet.clock())
        )
        self._hold = None if over else hold
        return self._hold is not None

    def sent(self, address: str, count: int) -> None:
        """See Owner."""
        self._tell(lambda: self._told.sent(self.server.name, address, count))

    def turned(self, before: NodeView, view: NodeView, listening_s: float | None) -> None:
        """See Owner."""
        name, node = self.server.name, self._nodes.get(view.address)
        if node is None or node.view is not view:
            return  # it has left meanwhile
        if before.alarm is not None and before.alarm is not view.alarm:
            self._tell(lambda: self._told.settled(name, view.address))
        if view.alarm is not None and before.alarm is not view.alarm:
            self._tell(lambda: self._told.alarm(name, view))
        if _short(view) != _short(before):
            self._tell(lambda: self._told.changed(name, view))
        if view.condition is Condition.UNSEALED and before.condition is not Condition.UNSEALED:
            self._downtime.unsealed(listening_s)
        self._see()

    def _see(self) -> None:
        views = [node.view for node in self._nodes.values()]
        recovery = self._downtime.see(views, asyncio.get_running_loop().time())
        if self._downtime.since_s is None:
            self._down_since_s = None
        elif self._down_since_s is None:
            self._down_since_s = self._fleet.clock()
        if recovery is not None:
            self._tell(lambda: self._told.recovered(recovery))
        if all(view.condition in _AWAY for view in views):
            self._astray.set()

    def _tell(self, call: Callable[[], None]) -> None:
        """Whoever is told must not be able to stop the watch."""
        with contextlib.suppress(Exception):
            call()


_AWAY: Final = (Condition.UNREACHABLE, Condition.HUNG, Condition.WRONG)


def _short(view: NodeView) -> tuple[object, ...]:
    return view.condition, view.alarm, view.active

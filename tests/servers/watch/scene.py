"""What tests of the watch do again and again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kluis.errors import Locked
from kluis.keyring.custody import Custody
from kluis.servers.declared import Identity, KeyPath, Listed, Server
from kluis.servers.tls import ServerTls, certificates, pin_of
from kluis.servers.watch.states import Alarm, Condition, Hold, NodeView, Recovery, ServerView
from kluis.servers.watch.watcher import Watcher
from tests.support.tls import Authority, Issued

KEY: Final = KeyPath("homelab", "vault")
DEADLINE_S: Final = 60.0
SHARES: Final = tuple(bytes([number]) * 32 + bytes([number + 1]) for number in range(5))


@dataclass
class Heard:
    """Keeps what a watcher tells."""

    alarms: list[tuple[str, NodeView]] = field(default_factory=list)
    settlings: list[tuple[str, str]] = field(default_factory=list)
    sendings: list[tuple[str, str, int]] = field(default_factory=list)
    conditions: list[tuple[str, NodeView]] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)

    def alarm(self, server: str, view: NodeView) -> None:
        self.alarms.append((server, view))

    def settled(self, server: str, address: str) -> None:
        self.settlings.append((server, address))

    def sent(self, server: str, address: str, count: int) -> None:
        self.sendings.append((server, address, count))

    def changed(self, server: str, view: NodeView) -> None:
        self.conditions.append((server, view))

    def recovered(self, recovery: Recovery) -> None:
        self.recoveries.append(recovery)

    @property
    def count(self) -> int:
        """How many shares were sent."""
        return sum(count for _, _, count in self.sendings)


@dataclass
class Scene:
    """A watcher of some servers, what it told, and what it may have."""

    servers: Mapping[str, Server]
    custody: Custody | None
    heard: Heard = field(default_factory=Heard)
    holds: dict[str, Hold] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.servers, self._custody, self.holds.get, self.heard)

    def _custody(self, path: KeyPath) -> Custody:
        if self.custody is None:
            raise Locked(f"{path.keyring} is locked", "nobody opened it", "kluis unlock")
        return self.custody

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """The watcher runs while the block does."""
        task = asyncio.create_task(self.watcher.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def node(self, server: str = "vault", number: int = 0) -> NodeView:
        """How a node is now."""
        nodes = list(self.watcher.views()[server].nodes.values())
        return nodes[number] if nodes else NodeView("", Condition.UNKNOWN, 0.0)

    async def becomes(
        self,
        condition: Condition,
        alarm: Alarm | None = None,
        server: str = "vault",
        number: int = 0,
    ) -> NodeView:
        """Wait until a node is in a condition, with this alarm or none."""

        def there() -> bool:
            node = self.node(server, number)
            return (node.condition, node.alarm) == (condition, alarm)

        await until(there, lambda: self.node(server, number))
        return self.node(server, number)


def server(
    addresses: Sequence[str],
    tls: ServerTls | None = None,
    identity: Identity | None = None,
    unseal: KeyPath | None = KEY,
    on_seal: Literal["hold", "unseal"] = "hold",
) -> Server:
    """A server with shares, 3 of 5."""
    listed, whom = Listed(tuple(addresses)), tls or ServerTls()
    return Server("vault", listed, whom, identity or Identity(3, 5), unseal=unseal, on_seal=on_seal)


def scene(one: Server, custody: Custody | None) -> Scene:
    """A scene with one server."""
    return Scene({one.name: one}, custody)


def kept(shares: Sequence[str], threshold: int = 3, cluster_id: str = "") -> Custody:
    """Shares, as a server gave them."""
    return Custody("unseal", threshold, tuple(map(bytes.fromhex, shares)), cluster_id=cluster_id)


def pinned(authority: Authority, issued: Issued) -> ServerTls:
    """Whom to believe: an authority, and the key of a certificate."""
    return ServerTls(authority.certificate, pin_of(certificates(issued.certificate)[0]))


async def until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, what()
        await asyncio.sleep(0.01)


Views = Mapping[str, ServerView]
Run = Callable[[Coroutine[Any, Any, Views]], Views]


def once(
    one: Server, custody: Custody | None, deadline_s: float = DEADLINE_S, run: Run = asyncio.run
) -> tuple[Scene, ServerView]:
    """One pass over one server."""
    made = scene(one, custody)
    views = run(made.watcher.once(deadline_s))
    return made, views[one.name]

"""Who is told what happens to watched servers: the journal, the metrics, the wake hooks."""

from __future__ import annotations

from typing import Protocol

from kluis.servers.watch.states import NodeView, Recovery


class Told(Protocol):
    """Called from the watcher's tasks, in their event loop: quick, and never raising."""

    def alarm(self, server: str, view: NodeView) -> None:
        """An alarm came up at a node; once, until it is another one or over."""
        ...

    def settled(self, server: str, address: str) -> None:
        """The node's alarm is over."""
        ...

    def sent(self, server: str, address: str, count: int) -> None:
        """So many shares were sent to a node."""
        ...

    def changed(self, server: str, view: NodeView) -> None:
        """A node's condition, alarm or ``active`` is another one."""
        ...

    def recovered(self, recovery: Recovery) -> None:
        """A server was down, and one of its nodes does the work again."""
        ...

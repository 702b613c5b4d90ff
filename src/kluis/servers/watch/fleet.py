"""What all watched nodes share, and what each of them asks of its server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from kluis.keyring.custody import Custody
from kluis.servers.declared import KeyPath
from kluis.servers.watch.probing import Lines
from kluis.servers.watch.rhythm import Pace
from kluis.servers.watch.states import NodeView

MOST_CONNECTING: Final = 128  # at once: their handshakes take less than a knock waits
MOST_HUNG: Final = 64  # of those that did not answer before: they don't hold up the others


@dataclass(slots=True)
class Fleet:
    """What all nodes share. ``clock`` gives Unix time."""

    custody: Callable[[KeyPath], Custody]
    clock: Callable[[], float]
    lines: Lines = field(default_factory=Lines)
    paces: Counter[Pace] = field(default_factory=Counter)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a node was looked at."""
    connecting: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MOST_CONNECTING)
    )
    hung: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_HUNG))


class Owner(Protocol):
    """The server of a node."""

    @property
    def working(self) -> bool:
        """Whether one of its nodes is unsealed and active."""
        ...

    def held(self) -> bool:
        """Whether a person holds it now."""
        ...

    def sent(self, address: str, count: int) -> None:
        """So many shares went out."""
        ...

    def turned(self, before: NodeView, view: NodeView, listening_s: float | None) -> None:
        """A node was judged anew; ``listening_s`` is since when it listens after it was away."""
        ...

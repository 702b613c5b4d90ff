"""Since when a server waits for its unseal, over all the requests that it makes meanwhile."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

AGAIN_S: Final = 30.0
"""A stock server asks again within 6 s; who did not in this time went away, and begins anew."""


class Waiter(NamedTuple):
    """A client that waits for a key."""

    keyring: str
    key: str
    client: str


class Waits:
    """Begin and last sign of every wait: at most one for each key of each client.

    Times are monotonic, in seconds.
    """

    def __init__(self) -> None:
        self._waits: dict[Waiter, tuple[float, float]] = {}

    def begins(self, who: Waiter, now_s: float) -> None:
        """A request of it is held."""
        first_s, last_s = self._waits.get(who, (now_s, now_s))
        self._waits[who] = first_s if now_s - last_s <= AGAIN_S else now_s, inf

    def pauses(self, who: Waiter, now_s: float) -> None:
        """The request is held no more, whatever became of it."""
        if known := self._waits.get(who):
            self._waits[who] = known[0], now_s

    def ends(self, who: Waiter, now_s: float) -> float | None:
        """It was unsealed: how long it waited, in seconds; None when it did not."""
        first_s, last_s = self._waits.pop(who, (now_s, -inf))
        return now_s - first_s if now_s - last_s <= AGAIN_S else None

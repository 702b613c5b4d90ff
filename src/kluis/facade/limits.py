"""What a facade bears: sizes, counts, rates as token buckets, and a share of its time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_BUCKETS: Final = 4096
CHEAP_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one facade; bytes, counts and seconds."""

    body_bytes: int = 64 * 1024
    header_bytes: int = 16 * 1024
    headers: int = 64
    connections: int = 16_384
    held: int = 16_384
    hold_s: float = 50.0
    request_s: float = 10.0
    idle_s: float = 120.0
    requests_per_s: int = 50_000
    denials_per_s: int = 20


class Rate:
    """Token buckets, one a name: ``per_s`` a second, and twice as many at once.

    At most MAX_BUCKETS names are remembered; the one that was quiet for longest is forgotten.
    """

    __slots__ = ("_buckets", "_burst", "_per_s")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._burst = 2.0 * per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, name: str, now_s: float) -> bool:
        """Take one from the bucket of ``name``; False when it is empty. ``now_s`` is monotonic."""
        left, since_s = self._buckets.get(name, (self._burst, now_s))
        left = min(self._burst, left + (now_s - since_s) * self._per_s)
        allowed = left >= 1.0
        self._buckets[name] = (left - 1.0 if allowed else left, now_s)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return allowed


class Spared:
    """Bytes that may cost something to make and that anybody may ask for.

    Where they take longer than CHEAP_S, at most a tenth of the time goes into making them.
    """

    __slots__ = ("_fresh_until_s", "_key", "_made", "_make")

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._key: object = None
        self._made = b""
        self._fresh_until_s = 0.0

    def get(self, key: object = None) -> bytes:
        """The bytes; made anew at once when the ``key`` is another than the last time."""
        start_s = time.monotonic()
        if start_s >= self._fresh_until_s or key != self._key:
            self._key, self._made = key, self._make()
            end_s = time.monotonic()
            took_s = end_s - start_s
            self._fresh_until_s = end_s + 9 * took_s if took_s > CHEAP_S else end_s
        return self._made

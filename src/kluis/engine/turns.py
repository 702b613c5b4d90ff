"""When each anchor of a keyring may be asked again, so that none is asked more than its pace says.

The pace holds for what kluis does by itself. A person who asks (``kluis unlock``, ``verify``) is
answered at once.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from kluis.anchors.base import Anchor
from kluis.errors import AnchorError, Unreachable

_JITTER: Final = 1.25


class Turns:
    """The turns of one keyring's anchors, by their names. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}
        self._failures: Counter[str] = Counter()

    def asked(self, anchor: Anchor) -> None:
        """It is asked now."""
        self._next[anchor.name] = self._clock() + anchor.pace.rest_s(1)

    def answered(self, anchor: Anchor) -> None:
        """It did what it was asked."""
        del self._failures[anchor.name]

    def failed(self, anchor: Anchor, failure: AnchorError, *, was_there: bool) -> None:
        """It was asked and failed. Only when it was there does the rest grow."""
        self._failures[anchor.name] += was_there
        rest_s = anchor.pace.rest_s(max(1, self._failures[anchor.name]))
        if isinstance(failure, Unreachable):
            rest_s = max(rest_s, failure.retry_s)
        rest_s *= random.uniform(1.0, _JITTER)  # noqa: S311 - jitter is no secret
        self._next[anchor.name] = self._clock() + rest_s

    def wait_s(self, anchor: Anchor) -> float:
        """Seconds until its next turn; 0 when that is now."""
        return max(0.0, self._next.get(anchor.name, 0.0) - self._clock())

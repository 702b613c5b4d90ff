"""What the double does wrong on command, and what it was asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.support.kubernetes.kinds import Object


@dataclass
class Fault:
    """A fault for ``times`` requests that fit ``method`` and ``path`` (a regex), after ``skip``.

    ``action`` and ``delay_s`` first; then one of: ``hang``, ``cut`` the connection, a ``status``
    with a reason and ``retry_after``, or a ``body`` as it is. With none of them the request is then
    answered as ever. ``watches`` says whether it is for watches only (True), for others only
    (False), or for all.
    """

    method: str = ""
    path: str = ""
    times: int = 1
    skip: int = 0
    watches: bool | None = None
    action: Callable[[], object] | None = None
    delay_s: float = 0.0
    hang: bool = False
    cut: bool = False
    status: int = 0
    reason: str = "InternalError"
    retry_after: str = ""
    body: bytes | None = None
    hits: int = 0

    def strikes(self, asked: Asked) -> bool:
        """Whether it is for this request; counts it."""
        fits = (
            self.hits < self.times
            and self.method in ("", asked.method)
            and re.search(self.path, asked.path) is not None
            and self.watches in (None, asked.watch)
        )
        if fits and self.skip:
            self.skip -= 1
            return False
        self.hits += fits
        return fits


@dataclass(frozen=True)
class Asked:
    """A request as it came in. ``bearer`` is the token it showed."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str
    bearer: str = field(repr=False)
    body: bytes = field(repr=False)
    json: Object | None = None

    @property
    def watch(self) -> bool:
        """Whether it asks for a watch."""
        return self.query.get("watch") in {"1", "true"}

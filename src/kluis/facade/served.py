"""What a bounded server serves: an application that knows its limits."""

from __future__ import annotations

from typing import Any, Protocol

from kluis.facade.limits import Limits


class Served(Protocol):
    """An ASGI application, with what its server keeps for it."""

    @property
    def limits(self) -> Limits:
        """What its connections may cost."""
        ...

    connections: int
    """How many are open now."""
    certificate_ends_s: float | None
    """When the first certificate of its chain ends, in Unix time; None without TLS."""

    def tidy(self) -> None:
        """Called about once a second. Raises KluisError, which goes to the log."""
        ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        ...

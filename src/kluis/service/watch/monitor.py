"""``[watch] listen``: metrics and health over plain HTTP, without a token and without a secret."""

from __future__ import annotations

import json
from typing import Any, Final

from kluis import __version__
from kluis.facade.limits import Limits
from kluis.facade.metrics import CONTENT_TYPE, Text
from kluis.facade.replies import Refusal, Reply, send_reply
from kluis.keyring.strict import JSON
from kluis.service.house import House
from kluis.service.servers import condition
from kluis.service.watch.watching import Watching

_LIMITS: Final = Limits(body_bytes=0, header_bytes=8192, connections=256)
"""Small: whoever floods it must not take the open files that the watching needs."""


class Monitor:
    """Answers ``GET /metrics`` and ``GET /health``; an ASGI application for a FacadeServer."""

    def __init__(self, house: House, watching: Watching) -> None:
        self.limits = _LIMITS
        self.connections = 0
        self.certificate_ends_s: float | None = None
        self._house, self._watching = house, watching
        self._metrics = Text(house.guards, watching.metrics)

    def tidy(self) -> None:
        """See Served."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - ASGI
        """Answer one request."""
        await send_reply(self._answer(scope["method"], scope["path"]), send)

    def _answer(self, method: str, path: str) -> Reply:
        if path not in ("/metrics", "/health"):
            return Refusal(404, ("there are /metrics and /health here",)).reply()
        if method not in ("GET", "HEAD"):
            return Refusal(405, ("it is only read",)).reply()
        if path == "/metrics":
            return Reply(200, self._metrics.text(), CONTENT_TYPE)
        return self._health()

    def _health(self) -> Reply:
        """200 while kluis can do its work, 503 while a keyring with shares is locked.

        What servers are in changes nothing here: another kluis would see the same.
        """
        servers = self._house.blueprint.servers
        needed = {server.unseal.keyring for server in servers.values() if server.unseal}
        guards = self._house.guards
        locked = sorted(name for name in needed if name not in guards or not guards[name].is_open)
        body: dict[str, JSON] = {
            "ok": not locked,
            "version": __version__,
            "locked": list[JSON](locked),
            "seen": _words(locked),
            "servers": {
                name: condition(view.nodes.values()).value
                for name, view in sorted(self._watching.watcher.views().items())
            },
        }
        return Reply(503 if locked else 200, json.dumps(body).encode())


def _words(locked: list[str]) -> str:
    if not locked:
        return "all servers are watched"
    return f"the shares in {' and '.join(locked)} can't be read: kluis unlock {locked[0]}"

"""uvicorn's HTTP protocol with bounds on what a stranger may send, and for how long.

uvicorn has no limit on headers and bodies, and lets a request take for ever. Here a request over
a limit is answered 4xx and the connection closed, while it is still being read; a sweep closes
connections whose request is not whole in time, or that do not read their answers.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from kluis.facade.app import Facade
from kluis.facade.clients import Peer

MAX_URL_BYTES: Final = 2048
_SAN_KINDS: Final = frozenset({"DNS", "IP Address", "URI", "email"})


class _Refused(Exception):
    """Leaves the parser; uvicorn then calls ``send_400_response``."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection to the facade."""

    def __init__(self, config: Config, state: ServerState, facade: Facade) -> None:
        super().__init__(config, state, {})
        self._facade = facade
        self._limits = facade.limits
        self._header_bytes = 0
        self._body_bytes = 0
        self._refusal = (400, "not an HTTP request")
        self.reading_since_s: float | None = None
        self.blocked_since_s: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Know the peer; refuse one connection too many."""
        super().connection_made(transport)
        self._facade.connections += 1
        self.reading_since_s = self.loop.time()
        peer = Peer(self.client[0] if self.client else "", _certificate_names(transport))
        self.app_state = {"peer": peer}
        if self._facade.connections > self._limits.connections:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        super().connection_lost(exc)
        self._facade.connections -= 1

    def on_message_begin(self) -> None:
        """A new request starts: the clock runs until it is whole."""
        super().on_message_begin()
        self._header_bytes = self._body_bytes = 0
        self.reading_since_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL, if it is not too long."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(414, "the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, if it is not one too many, and announces no body that is too large."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if (
            len(self.headers) > self._limits.headers
            or self._header_bytes > self._limits.header_bytes
        ):
            self._refuse(431, "too many or too large headers")
        if name.lower() == b"content-length" and (
            len(value) > 12 or int(value) > self._limits.body_bytes
        ):
            self._refuse(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, if it is not too large."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse(413, f"the body is larger than {self._limits.body_bytes} bytes")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        self.reading_since_s = None

    def pause_writing(self) -> None:
        """The client does not read: the clock runs until it does."""
        super().pause_writing()
        self.blocked_since_s = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self.blocked_since_s = None

    def overdue(self, now_s: float) -> bool:
        """Whether this connection takes longer than it may."""
        limit_s = self._limits.request_s
        since = (self.reading_since_s, self.blocked_since_s)
        return any(start_s is not None and now_s - start_s > limit_s for start_s in since)

    def _refuse(self, status: int, words: str) -> None:
        self._refusal = (status, words)
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        """Answer what can't be read on, in Vault's shape, and close."""
        status, words = self._refusal
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()
            return
        body = json.dumps({"errors": [words]}).encode()
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % len(body)
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def _certificate_names(transport: asyncio.Transport) -> frozenset[str]:
    """The SANs of a client's certificate that the client CA vouches for."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate: Any = tls.getpeercert() if tls is not None else None
    names = (certificate or {}).get("subjectAltName", ())
    return frozenset(value for kind, value in names if kind in _SAN_KINDS)

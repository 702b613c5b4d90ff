"""uvicorn's HTTP protocol with bounds on what a stranger may send, and for how long.

uvicorn has no limit on headers and bodies, and lets a request take for ever. Here a request over
a limit is answered 4xx and the connection closed, while it is still being read; a sweep closes
connections whose request is not whole in time, or that do not read their answers.

An answer always belongs to the request that it is read for: what could make two parties count
requests differently (upgrades, trailers, a header twice) is refused, and nothing is written out
of turn.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from kluis.facade.clients import Peer
from kluis.facade.served import Served

MAX_URL_BYTES: Final = 2048
MAX_PIPELINED: Final = 16
_ONCE: Final = frozenset({b"x-vault-token", b"x-vault-namespace", b"authorization", b"host"})


class _Refused(Exception):
    """Leaves the parser; uvicorn then calls ``send_400_response``."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection to the facade."""

    def __init__(self, config: Config, state: ServerState, facade: Served) -> None:
        super().__init__(config, state, {})
        self._facade = facade
        self._limits = facade.limits
        self._running: RequestResponseCycle | None = None
        self._head_is_read = False
        self._head_began = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._refusal = (400, "not an HTTP request")
        self.reading_since_s: float | None = None
        self.blocked_since_s: float | None = None
        self.closing_since_s: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Know the peer; refuse one connection too many."""
        super().connection_made(transport)
        self._facade.connections += 1
        self.reading_since_s = self.loop.time()
        address = _plain_address(self.client[0]) if self.client else ""
        self.app_state = {"peer": Peer(address, _certificate_names(transport))}
        if self._facade.connections > self._limits.connections:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out, and tell every request that still runs or waits in line."""
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._facade.connections -= 1

    def data_received(self, data: bytes) -> None:
        """Parse what came. The clock runs for blank lines and half a header, too."""
        if self.transport.is_closing():
            return
        if self.reading_since_s is None:
            self.reading_since_s = self.loop.time()
        if self._head_bytes > MAX_URL_BYTES + self._limits.header_bytes:
            self._refusal = (431, "too many or too large headers")
            self.send_400_response("")
            return
        super().data_received(data)
        self._count_unfinished_head(len(data))

    def _count_unfinished_head(self, count_bytes: int) -> None:
        """Count the bytes of a head after those it came with first: its begin may lie anywhere."""
        if self._head_is_read or self.reading_since_s is None or self._head_began:
            self._head_bytes = 0
        else:
            self._head_bytes += count_bytes
        self._head_began = False

    def on_message_begin(self) -> None:
        """A new request starts: the clock runs until it is whole."""
        super().on_message_begin()
        self._head_began = True
        if not self.pipeline:
            self._body_bytes = 0  # those of requests that wait in line count together
        self.reading_since_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL, if it is not too long."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(414, "the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. One that follows a chunked body would be believed as if it came first."""
        if self._head_is_read:
            self._refuse(400, "trailers are not read here")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Start the request, if its head is within the limits and means one thing only."""
        self._check_head()
        if self.parser.should_upgrade():
            self._refuse(400, "there is nothing to upgrade to")
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(429, "too many requests at once on one connection")
        super().on_headers_complete()
        self._head_is_read = True

    def _check_head(self) -> None:
        limits = self._limits
        size_bytes = 0
        once: list[bytes] = []
        for name, value in self.headers:
            size_bytes += len(name) + len(value)
            if name == b"content-length":
                if len(value) > 12 or int(value) > limits.body_bytes:
                    self._refuse(413, f"the body is larger than {limits.body_bytes} bytes")
            elif name in _ONCE:
                once.append(name)
            elif name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
        if len(self.headers) > limits.headers or size_bytes > limits.header_bytes:
            self._refuse(431, "too many or too large headers")
        if len(once) > len(set(once)):
            self._refuse(400, f"one of {b', '.join(once).decode()} stands twice")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, if it is not too large."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse(413, f"the body is larger than {self._limits.body_bytes} bytes")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        self._head_is_read = False
        self.reading_since_s = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The client does not read: the clock runs until it does."""
        super().pause_writing()
        self.blocked_since_s = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self.blocked_since_s = None

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything on this connection."""
        return self.reading_since_s is None and (self.cycle is None or self.cycle.response_complete)

    def overdue(self, now_s: float) -> bool:
        """Whether this connection takes longer than it may."""
        if self.closing_since_s is None and self.transport.is_closing():
            self.closing_since_s = now_s  # closed, and yet the client does not read the rest
        limit_s = self._limits.request_s
        since = (self.reading_since_s, self.blocked_since_s, self.closing_since_s)
        return any(start_s is not None and now_s - start_s > limit_s for start_s in since)

    def _refuse(self, status: int, words: str) -> None:
        self._refusal = (status, words)
        raise _Refused

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are not used
        """Answer what can't be read on, in Vault's shape, and close.

        Only close where the words would be read as the answer to another request.
        """
        if self._is_its_turn():
            status, words = self._refusal
            body = json.dumps({"errors": [words]}).encode()
            head = (
                b"content-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n" % len(body)
            )
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _is_its_turn(self) -> bool:
        """Whether the next answer on this connection is that of the request being read."""
        if self._head_is_read:
            return not self.pipeline and not self.cycle.response_started
        return self.cycle is None or self.cycle.response_complete


def _plain_address(address: str) -> str:
    """An address as networks and logs name it: IPv4 also where it came mapped into IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return address if mapped is None else str(mapped)


def _certificate_names(transport: asyncio.Transport) -> frozenset[str]:
    """The SANs of a client's certificate that the client CA vouches for.

    A name counts only in the form of its kind: a URI or an e-mail address is never taken for a
    host, for a CA may let its users choose those.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate: Any = tls.getpeercert() if tls is not None else None
    names = (certificate or {}).get("subjectAltName", ())
    return frozenset(value for kind, value in names if _in_form(kind, value))


def _in_form(kind: str, value: str) -> bool:
    match kind:
        case "DNS":
            return "@" not in value and ":" not in value
        case "URI":
            return ":" in value
        case "email":
            return "@" in value
    return kind == "IP Address"

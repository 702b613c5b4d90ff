"""Replies in Vault's shape."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kluis.keyring.strict import JSON

Headers = tuple[tuple[bytes, bytes], ...]

_JSON: Final[Headers] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_PREFIX: Final = secrets.token_hex(4)
_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, a body, and the headers of it."""

    status: int
    body: bytes
    headers: Headers = _JSON


_BODILESS: Final = (204, 205, 304)


async def send_reply(reply: Reply, send: Any) -> None:
    """Send a reply to who asked (ASGI)."""
    body = b"" if reply.status in _BODILESS else reply.body
    length = (b"content-length", b"%d" % len(body))
    headers = [*reply.headers, length]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(slots=True)
class Refusal(Exception):
    """A request that is answered with errors; ``reason`` goes to the audit log only."""

    status: int
    errors: tuple[str, ...]
    reason: str = ""
    headers: Headers = field(default=())

    def reply(self) -> Reply:
        """The reply: ``{"errors": […]}``."""
        return Reply(
            self.status, json.dumps({"errors": list(self.errors)}).encode(), _JSON + self.headers
        )


def retry_after(seconds: int) -> Headers:
    """The header that tells a client when to come back."""
    return ((b"retry-after", str(seconds).encode("ascii")),)


def request_id() -> str:
    """A number for a reply: unique in this process, in the shape of a UUID."""
    return f"{_PREFIX}-0000-4000-8000-{next(_counter):012x}"


def data_reply(data: Mapping[str, JSON]) -> Reply:
    """A reply that carries data."""
    return _data_reply(json.dumps(data))


def plaintext_reply(encoded: bytes) -> Reply:
    """The answer to a decrypt; ``encoded`` is the plaintext in base64."""
    return _data_reply(f'{{"plaintext":"{encoded.decode("ascii")}"}}')


def ciphertext_reply(ciphertext: str, version: int) -> Reply:
    """The answer to an encrypt or a rewrap."""
    return _data_reply(f'{{"ciphertext":"{ciphertext}","key_version":{version}}}')


def _data_reply(data: str) -> Reply:
    return Reply(200, f"{_OPEN % request_id()}{data}{_CLOSE}".encode())


def auth_reply(auth: Mapping[str, JSON]) -> Reply:
    """A reply that carries a login."""
    head = _OPEN % request_id() + "null"
    return Reply(200, (head + _CLOSE[:-5] + json.dumps(auth) + "}").encode())


_OPEN: Final = '{"request_id":"%s","lease_id":"","renewable":false,"lease_duration":0,"data":'
_CLOSE: Final = ',"wrap_info":null,"warnings":null,"auth":null}'


def text_reply(data: JSON, status: int = 200) -> Reply:
    """A reply of plain JSON, as the ``sys`` endpoints give."""
    return Reply(status, json.dumps(data).encode())

"""Reading what a client sent: bounded, and believed only after its type was checked."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kluis.facade.clients import Peer
from kluis.facade.replies import Refusal


class Gone(Exception):
    """The client went away before its request was whole."""


class Receive(Protocol):
    """ASGI's receive."""

    async def __call__(self) -> Any:
        """The next message."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``segments`` are those of the path after ``/v1/``."""

    method: str
    segments: tuple[str, ...]
    query: str
    token: bytes
    namespace: bytes
    peer: Peer
    receive: Receive

    async def body(self, limit_bytes: int) -> bytes:
        """The body. Raises Refusal (413) or Gone."""
        message = await self.receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body", False) and len(body) <= limit_bytes:
            message = await self.receive()
            body += message.get("body", b"")
        if message["type"] == "http.disconnect":
            raise Gone
        if len(body) > limit_bytes:
            raise Refusal(413, (f"the body is larger than {limit_bytes} bytes",), "body too large")
        return body

    async def disconnected(self) -> None:
        """Returns when the client went away. The body must have been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def json_object(body: bytes) -> Mapping[str, object]:
    """The members of a JSON object; an empty body has none. Raises Refusal (400)."""
    try:
        value = json.loads(body.decode("utf-8")) if body else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refusal(400, ("the body is not a JSON object",), "bad body")
    return value


def base64_member(members: Mapping[str, object], name: str) -> bytes | None:
    """A member in base64, None when absent or empty. Raises Refusal (400)."""
    value = members.get(name)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Refusal(400, (f"{name} is not base64",), "bad body")


def text_member(members: Mapping[str, object], name: str) -> str:
    """A member that is a text. Raises Refusal (400)."""
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise Refusal(400, (f"missing {name}",), "bad body")
    return value

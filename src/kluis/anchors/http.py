"""One bounded HTTP call to the server behind an anchor.

Every call has a connection of its own: an anchor is asked rarely, and certificates that were
renewed on the disk are then simply used. Answers are bounded, redirects are not followed (a token
would go with them), proxies and cookies are not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from kluis.anchors.names import Resolver, addresses
from kluis.anchors.tls import fault_of, fault_of_handshake, refused
from kluis.errors import AnchorError, Misconfigured, Unreachable

MAX_ANSWER_BYTES: Final = 1 << 20
MAX_RETRY_S: Final = 60.0
"""Whoever forges one answer must not silence an anchor for longer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and the bytes that came with it.

    ``retry_after_s`` is what the server asked for by Retry-After, at most a minute; 0 when nothing.
    """

    status: int
    content: bytes
    retry_after_s: float = 0.0

    def json(self) -> Mapping[str, object]:
        """The JSON object that came; empty where there was none."""
        try:
            parsed: object = json.loads(self.content) if self.content else {}
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}


async def call(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """What ``url`` answers, whatever its status. The caller has the deadline.

    Raises Unreachable, Refused when one side does not accept the other's certificate,
    Misconfigured when what comes is not HTTP, or more than 1 MiB.
    """
    # Not force_close: the connector's own close waits until the connection is gone.
    connector = aiohttp.TCPConnector(ssl=tls or True, resolver=Resolver())
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout
            ) as session,
            session.request(
                method, URL(url), data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            content = await _bounded(url, response)
            return Answer(response.status, content, _retry_after_s(response))
    except (aiohttp.ClientError, OSError) as error:
        raise await _failure(url, error, tls) from None


async def knock(url: str) -> None:
    """Returns when somebody listens at ``url``; not a byte is sent. Raises Unreachable."""
    place = URL(url)
    try:
        found = await addresses(place.host or "", place.port or 0)
        writer = await _connected([address for _, address in found], place.port or 0)
    except OSError as error:
        raise _unreachable(url, error) from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _connected(found: list[str], port: int) -> asyncio.StreamWriter:
    """A connection to the first address that takes one. Raises the last one's OSError."""
    failure = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for address in found:
        try:
            return (await asyncio.open_connection(address, port))[1]
        except OSError as error:
            failure = error
    raise failure


async def _bounded(url: str, response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise Misconfigured(
                f"{host(url)} answered with more than {MAX_ANSWER_BYTES} bytes",
                "another service may listen there",
                "check the address",
            )
    return bytes(content)


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    found = response.headers.get("Retry-After", "")
    return min(MAX_RETRY_S, float(found)) if re.fullmatch("[0-9]{1,9}", found, re.ASCII) else 0.0


async def _failure(url: str, error: Exception, tls: ssl.SSLContext | None) -> AnchorError:
    fault = fault_of(error)
    if fault is None and url.startswith("https:") and _broken_off(error):
        fault = await fault_of_handshake(URL(url), tls)
    if fault is not None:
        return refused(host(url), fault)
    if isinstance(error, aiohttp.ClientResponseError):
        return Misconfigured(
            f"what {host(url)} answers is not HTTP",
            "another service listens there",
            "check the address",
        )
    return _unreachable(url, error)


def _broken_off(error: Exception) -> bool:
    """Whether a connection ended that had come about: TLS 1.3 may end it for a certificate."""
    return not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientResponseError)


def _unreachable(url: str, error: Exception) -> Unreachable:
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return Unreachable(
            f"the name {URL(url).host} is not known",
            "the name is wrong, or the name server does not answer",
            "check the address, and the name resolution of this machine",
        )
    number = error.errno if isinstance(error, OSError) else None
    cause = os.strerror(number) if number and number in errno.errorcode else "cut off"
    return Unreachable(
        f"{host(url)} can't be reached: {cause}",
        "it does not run, does not listen there, or the way to it is cut",
        "check that it runs, and its address",
    )


def host(url: str) -> str:
    """Host and port of a URL, for a person."""
    place = URL(url)
    return f"{place.host}:{place.port}"

"""One bounded HTTP call to a stock server's API, and every way in which it can fail.

Answers are bounded in size and time, redirects are not followed (the token would go with them),
proxies and cookies are not used. Every failure is a ``ServerError``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Literal, NoReturn

import aiohttp
from yarl import URL

from kluis.errors import (
    ServerAnswered,
    ServerError,
    ServerHung,
    ServerUnreachable,
    UsageError,
    WrongServer,
)
from kluis.servers.tls import ServerTls, WrongPin

MAX_ANSWER_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 10.0
SUCCESS: Final = frozenset({200, 204})


@dataclass(frozen=True)
class Answer:
    """A status, and the JSON object that came with it; empty where there was none.

    ``content`` is what came, as it was.
    """

    status: int
    body: Mapping[str, object]
    content: bytes = field(default=b"", repr=False)


class HttpApi:
    """The API at ``address``; ``open`` before the first call, ``close`` after the last.

    Raises:
        UsageError: the address or the CA file can't be used, or ``tls=False``, which verifies
            nothing, is asked for an address that is not on loopback.
    """

    def __init__(self, address: str, tls: ServerTls | Literal[False], timeout_s: float) -> None:
        self.address = address
        self._base = _base_url(address)
        if tls is False and not self.on_loopback:
            raise UsageError(
                f"the certificate of {address} must be verified",
                "only a server on loopback may be watched without that",
                "name its certificate authority instead",
            )
        self._tls: ssl.SSLContext | Literal[False] = (
            tls.context() if tls and self._base.scheme == "https" else False
        )
        self._server_name = tls.server_name if tls else None
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def on_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return _is_loopback(self._base.host or "")

    @property
    def in_the_clear(self) -> bool:
        """Whether others on the way can read along."""
        return self._base.scheme == "http" and not self.on_loopback

    def open(self) -> None:
        """Make the session; needs a running event loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def close(self) -> None:
        """Close the session's connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str = "",
        timeout_s: float | None = None,
        accepted: frozenset[int] = SUCCESS,
    ) -> Answer:
        """Call ``/v1/<path>``. A status that is not in ``accepted`` is an error.

        Raises:
            ServerError: not reachable, no answer in time, an answer too large or not accepted.
        """
        if self._session is None:
            raise RuntimeError("a ServerClient is used as `async with ServerClient(…) as client`")
        headers = {"X-Vault-Request": "true", **({"X-Vault-Token": token} if token else {})}
        try:
            async with (
                asyncio.timeout(timeout_s or self._timeout_s),
                self._session.request(
                    method,
                    self._base / f"v1/{path}",
                    json=body,
                    headers=headers,
                    allow_redirects=False,
                    server_hostname=self._server_name,
                    timeout=aiohttp.ClientTimeout(total=None),  # asyncio.timeout above has it
                ) as response,
            ):
                content = await self._bounded(response)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise self._failure(error, timeout_s or self._timeout_s) from None
        answer = Answer(response.status, _object(content), content)
        if answer.status not in accepted:
            raise self._refusal(method, path, answer)
        return answer

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_chunked(1 << 16):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise ServerError(
                    f"{self.address} answered with more than {MAX_ANSWER_BYTES} bytes",
                    "that is not an answer of OpenBao or Vault",
                    "check the address",
                )
        return bytes(content)

    def _failure(self, error: Exception, timeout_s: float) -> ServerError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            pinned = isinstance(error.certificate_error, WrongPin)
            return WrongServer(
                f"the certificate of {self.address} was refused",
                "its key is not the pinned one"
                if pinned
                else "no known authority signed it, it expired, or it names another host",
                "if its key was changed on purpose: kluis server add pins the new one"
                if pinned
                else "name the file of its certificate authority",
            )
        if isinstance(error, TimeoutError):
            return ServerHung(
                f"{self.address} did not answer within {timeout_s:g} s",
                "it hangs, waits for something, or does not speak this protocol",
                "check its log, and its address",
            )
        return ServerUnreachable(
            f"{self.address} can't be reached",
            "the server does not run, does not listen there, or does not speak this protocol",
            "check that it runs, and its address",
        )

    def _refusal(self, method: str, path: str, answer: Answer) -> ServerError:
        said = answer.body.get("errors")
        reasons = [_short(text) for text in said] if isinstance(said, list) else []
        return ServerAnswered(
            f"{self.address} answered {answer.status} to {method} {path}",
            "; ".join(reasons[:3]) or "it gave no reason",
            "check the state of the server (bao status) and what the token may do",
            answer.status,
        )

    def unexpected(self, path: str) -> NoReturn:
        """Raise that an answer lacks what OpenBao and Vault always send."""
        raise ServerError(
            f"{self.address} answered to {path} what OpenBao and Vault do not",
            "another service may listen there",
            "check the address",
        )


def _object(content: bytes) -> Mapping[str, object]:
    try:
        parsed: object = json.loads(content) if content else {}
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _short(text: object) -> str:
    printable = "".join(char if char.isprintable() else " " for char in str(text)[:200])
    return " ".join(printable.split())


def _base_url(address: str) -> URL:
    try:
        url = URL(address)
        usable = url.scheme in {"http", "https"} and bool(url.host) and url.user is None
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"{_short(address)} is not the address of a server",
            "an address is a scheme, a host and a port",
            "write it as https://bao.example:8200",
        )
    return url.origin() / url.path.strip("/") if url.path.strip("/") else url.origin()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

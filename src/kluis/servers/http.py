"""One bounded HTTP call to a stock server's API, and every way in which it can fail.

Answers are bounded in size and time, redirects are not followed (the token would go with them),
proxies and cookies are not used. Every failure of a server is a ``ServerError``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import aiohttp
from aiohttp.abc import ResolveResult
from yarl import URL

from kluis.addresses import is_loopback
from kluis.errors import (
    ServerAnswered,
    ServerError,
    ServerHung,
    ServerUnreachable,
    UsageError,
    WrongServer,
)
from kluis.servers.listener import OWN_FAULTS, Prove, proving
from kluis.servers.tls import OTHER_NAME, ServerTls, WrongPin

if TYPE_CHECKING:
    from aiohttp import ClientRequest
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

MAX_ANSWER_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 10.0
SUCCESS: Final = frozenset({200, 204})
_SHARE: Final = "a share"  # stands for whatever a server could make of one
_NAMED_BY_PROXIES: Final = ("Via", "Server")


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

    ``connector`` makes the connections in another way, and decides by itself whom it believes.
    ``quiet``: no error repeats what the server says.

    Raises:
        UsageError: the address or the CA file can't be used, or ``tls=False``, which verifies
            nothing, is asked for an address that is not on loopback.
    """

    def __init__(
        self,
        address: str,
        tls: ServerTls | Literal[False],
        timeout_s: float,
        connector: aiohttp.BaseConnector | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.address = address
        self.proxied = False
        """Whether the last answer told of a proxy on the way. A stock server names no software."""
        self._base = _base_url(address)
        if tls is False and not self.on_loopback:
            raise UsageError(
                f"the certificate of {address} must be verified",
                "only a server on loopback may be watched without that",
                "name its certificate authority instead",
            )
        self._connector, self._quiet = connector, quiet
        self._tls: ssl.SSLContext | Literal[False] = (
            tls.context() if tls and connector is None and self._base.scheme == "https" else False
        )
        self._server_name = tls.server_name if tls else None
        self._prove = proving(address, tls.user) if tls else None
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def on_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(self._base.host or "")

    @property
    def in_the_clear(self) -> bool:
        """Whether others on the way can read along."""
        return self._base.scheme == "http" and not self.on_loopback

    def open(self) -> None:
        """Make the session; needs a running event loop."""
        here = _Loopback() if self.on_loopback and self._base.scheme == "http" else None
        self._session = aiohttp.ClientSession(
            connector=self._connector or Connector(self._prove, ssl=self._tls, resolver=here),
            cookie_jar=aiohttp.DummyCookieJar(),
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

        A write is made once: it is a POST, for a PUT would be sent again when a connection ends.

        Raises:
            ServerError: not reachable, no answer in time, an answer too large or not accepted.
            OSError: this process could not prove who listens, for it lacks files or memory.
        """
        if self._session is None:
            raise RuntimeError("a ServerClient is used as `async with ServerClient(…) as client`")
        headers = {"X-Vault-Request": "true", **({"X-Vault-Token": token} if token else {})}
        try:
            async with (
                asyncio.timeout(timeout_s or self._timeout_s),
                self._session.request(
                    "POST" if method == "PUT" else method,
                    self._base / f"v1/{path}",
                    json=body,
                    headers=headers,
                    allow_redirects=False,
                    server_hostname=self._server_name,
                    timeout=aiohttp.ClientTimeout(total=None),  # asyncio.timeout above has it
                ) as response,
            ):
                content = await self._bounded(response)
                self.proxied = any(name in response.headers for name in _NAMED_BY_PROXIES)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if _is_own_fault(error):
                raise
            raise self._failure(error, timeout_s or self._timeout_s) from None
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            # Nobody wants this call to end: the connection did, in the middle of its making.
            raise self._failure(aiohttp.ClientConnectionError(), self._timeout_s) from None
        answer = Answer(response.status, _object(content), content)
        if answer.status not in accepted:
            raise self._refusal(method, path, answer, _secrets(body, token))
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
            refused = f"the certificate of {self.address} was refused"
            return WrongServer(refused, *self._why_refused(error.certificate_error))
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

    def _why_refused(self, error: Exception) -> tuple[str, str]:
        """What it means that a certificate was refused, and what to do."""
        if isinstance(error, WrongPin):
            return (
                "its key is not the pinned one",
                "if its key was changed on purpose: kluis server add pins the new one",
            )
        if getattr(error, "verify_code", None) in OTHER_NAME:
            return (
                f"it does not name {self._server_name or self._base.host}",
                "if that is the server: write the name it has as server_name;"
                " if it has only addresses, list them as addresses, and no dns",
            )
        return (
            "no known authority signed it, or it expired",
            "name the file of its certificate authority, or renew it",
        )

    def _refusal(
        self, method: str, path: str, answer: Answer, secrets: frozenset[str]
    ) -> ServerError:
        """The error of a refusal; the server's words only where they can't be a secret's echo."""
        said = answer.body.get("errors")
        reasons = [_short(text) for text in said] if isinstance(said, list) else []
        hidden = self._quiet or _SHARE in secrets or any(one in str(said) for one in secrets)
        if hidden:
            reasons = []
        return ServerAnswered(
            f"{self.address} answered {answer.status} to {method} {path}",
            "; ".join(reasons[:3]) or ("its log says why" if hidden else "it gave no reason"),
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


def _is_own_fault(error: Exception) -> bool:
    """Whether who listens could not be proven for a lack of files or memory here."""
    connecting = isinstance(error, aiohttp.ClientConnectorError)
    return isinstance(error, OSError) and error.errno in OWN_FAULTS and not connecting


def _is_cancelled() -> bool:
    """Whether somebody cancelled the task that runs."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _secrets(body: Mapping[str, object] | None, token: str) -> frozenset[str]:
    """What a server was sent that it must not have us print."""
    share = body is not None and "key" in body
    return frozenset({*({token} if token else ()), *({_SHARE} if share else ())})


class Connector(aiohttp.TCPConnector):
    """Each connection is looked at by ``prove`` before a byte goes over it."""

    def __init__(self, prove: Prove | None, **options: Any) -> None:
        super().__init__(**options)
        self._prove = prove

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        transport = protocol.transport
        if transport is None:
            raise aiohttp.ClientConnectionError
        if self._prove is not None:
            try:
                await self._prove(transport)
            except BaseException:
                transport.abort()
                raise
        return protocol


class _Loopback(aiohttp.ThreadedResolver):
    """Finds addresses of this machine only, whatever a name of loopback leads to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses. Raises OSError when there is none on this machine."""
        found = await super().resolve(host, port, family)
        here = [one for one in found if ip_address(one["host"]).is_loopback]
        if not here:
            raise OSError(f"{host} is not on this machine")
        return here


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

"""One HTTP call to the Kubernetes API, and every way in which it can fail.

Answers are bounded in size and time, redirects are not followed (the token would go with them),
proxies and cookies are not used. Every failure is a KubernetesError.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Self

import aiohttp
from yarl import URL

from kluis.anchors.names import Resolver
from kluis.errors import (
    AnchorError,
    ApiConflict,
    ApiGone,
    ApiRefused,
    ApiUnreachable,
    KubernetesError,
)
from kluis.kubernetes.access import Access
from kluis.kubernetes.objects import JSON, Object, text

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_REFUSAL_BYTES: Final = 64 << 10
MAX_RETRY_S: Final = 5.0
TIMEOUT_S: Final = 10.0
MERGE_PATCH: Final = "application/merge-patch+json"  # RFC 7386

_SPECIAL: Final[Mapping[int, type[ApiRefused]]] = {409: ApiConflict, 410: ApiGone}


class Api:
    """The API behind an access, used as ``async with``. One call has ``timeout_s``."""

    def __init__(self, access: Access, timeout_s: float = TIMEOUT_S) -> None:
        self.access = access
        self.timeout_s = timeout_s
        self._base = URL(access.server)
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        """Host and port, for a person."""
        return f"{self._base.host}:{self._base.port}"

    async def __aenter__(self) -> Self:
        secure = self._base.scheme == "https"
        tls = await asyncio.to_thread(self.access.context) if secure else False
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, resolver=Resolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # who calls has the deadline
            response_class=_Abrupt,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> tuple[Object, int]:
        """The object that is answered, and its size in bytes.

        While the API asks to be asked later (429), it is asked again within the time of a call.
        Raises KubernetesError.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    try:
                        return await self._call(method, path, query or {}, body)
                    except ApiRefused as refused:
                        if refused.status != 429:
                            raise
                        await asyncio.sleep(refused.retry_s or 1.0)
        except TimeoutError:
            raise self.hung() from None

    async def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None
    ) -> tuple[Object, int]:
        async with self.answer(method, path, query, body) as response:
            content = await self._bounded(response, MAX_ANSWER_BYTES)
        return self.parse(content), len(content)

    @asynccontextmanager
    async def answer(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of success, still to be read. The caller has the deadline.

        Raises KubernetesError, also while it is read.
        """
        if self._session is None:
            raise RuntimeError("it is used as `async with Kubernetes(…) as api`")
        url = self._base.with_path(self._base.raw_path.rstrip("/") + path, encoded=True)
        try:
            async with self._session.request(
                method,
                url.with_query(query),
                data=json.dumps(body).encode() if body else None,
                headers=await self._headers(method if body else ""),
                allow_redirects=False,
                server_hostname=self.access.server_name,
            ) as response:
                try:
                    if response.status not in {200, 201}:
                        raise await self._refusal(method, path, response)
                    yield response
                finally:
                    response.close()
        except (aiohttp.ClientError, OSError, AnchorError) as error:
            raise self._failure(error) from None

    async def _headers(self, sends: str) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "kluis"}
        if sends:
            headers["Content-Type"] = MERGE_PATCH if sends == "PATCH" else "application/json"
        if self.access.token is not None:
            token = await asyncio.to_thread(self.access.token.read)
            headers["Authorization"] = f"Bearer {token}"
        return headers

    async def _bounded(self, response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_chunked(1 << 16):
            content += chunk
            if len(content) > most_bytes:
                raise self.too_large(most_bytes)
        return bytes(content)

    def parse(self, content: bytes) -> Object:
        """The JSON object that came. Raises KubernetesError."""
        try:
            found: JSON = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise KubernetesError(
                f"{self.address} answered what Kubernetes does not",
                "another service may listen there",
                "check the address of the API",
            )
        return found

    # -- failures

    async def _refusal(
        self, method: str, path: str, response: aiohttp.ClientResponse
    ) -> KubernetesError:
        try:
            status = self.parse(await self._bounded(response, MAX_REFUSAL_BYTES))
        except KubernetesError:
            status = {}
        error = self.refused(f"{method} {path}", status, response.status)
        asked = response.headers.get("Retry-After", "")
        if re.fullmatch("[0-9]{1,9}", asked, re.ASCII):
            error.retry_s = min(MAX_RETRY_S, float(asked))
        return error

    def refused(self, what: str, status: Object, code: int) -> ApiRefused:
        """The error for a ``Status`` object, or for a bare HTTP status."""
        return _SPECIAL.get(code, ApiRefused)(
            f"Kubernetes ({self.address}) answered {code} to {what}",
            _short(text(status, "message")) or "it gave no reason",
            _NEXT_STEPS.get(code, "see the message, and the log of the API"),
            code,
            _short(text(status, "reason")),
        )

    def hung(self) -> ApiUnreachable:
        """The error for an answer that did not come in time."""
        return ApiUnreachable(
            f"the Kubernetes API at {self.address} did not answer in time",
            "it is overloaded, it has no leader, or the way to it is cut",
            "check that it is up: kubectl get --raw /readyz",
        )

    def too_large(self, most_bytes: int) -> KubernetesError:
        """The error for more than what is read."""
        return KubernetesError(
            f"the Kubernetes API at {self.address} answered with more than {most_bytes} bytes",
            "no answer to what kluis asks is so large",
            "check the address of the API, and the selector",
        )

    def _failure(self, error: Exception) -> ApiUnreachable:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return ApiUnreachable(
                f"the certificate of {self.address} was refused",
                "the authority for the API did not sign it, it expired, or it names another host",
                "check the certificate authority and the address of the API",
            )
        if isinstance(error, TimeoutError):
            return self.hung()
        return ApiUnreachable(
            f"the Kubernetes API at {self.address} can't be reached",
            "it does not run, does not listen there, or the way to it is cut",
            "check that it is up, and its address: kubectl get --raw /readyz",
        )


class _Abrupt(aiohttp.ClientResponse):
    """An answer that, closed before its end, takes its connection down at once.

    TLS would wait for the other side's farewell, and who hangs says none.
    """

    def close(self) -> None:
        connection = self.connection  # none any more where the answer was read to its end
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


_NEXT_STEPS: Final = {
    401: "give kluis a token that is valid for this cluster",
    403: "give its account a Role for this: docs/KUBERNETES.md has one",
    404: "check the name and the namespace; for a custom resource, that its CRD is installed",
    409: "read the object again, and decide anew",
}


def _short(said: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in said[:300])
    return " ".join(printable.split())

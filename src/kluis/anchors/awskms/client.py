"""A client of AWS KMS for one call.

Credentials and AWS's files are read anew for every call, so that what was renewed is used; what is
slow to load is kept (awskms_models.py). Connections, sessions and clients are not: they are bound
to an event loop. Nothing is asked twice: kluis has its own pace.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore import UNSIGNED, xform_name
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from kluis.addresses import is_loopback
from kluis.anchors.awskms.answers import Ask
from kluis.anchors.awskms.errors import FAILURES, failed, no_region, not_prepared
from kluis.anchors.awskms.keys import Key
from kluis.anchors.awskms.models import is_known_region, models
from kluis.anchors.http import MAX_ANSWER_BYTES
from kluis.anchors.names import Resolver
from kluis.errors import Misconfigured

_PATIENCE: Final = 0.9
"""The part of the deadline that one step may take: its own error says more than the deadline's."""

_SOURCES: Final = {
    "assume-role": "the role that the profile takes on",
    "assume-role-with-web-identity": "a web identity",
    "config-file": "AWS's config file",
    "container-role": "the role of the container",
    "custom-process": "the program of the profile",
    "env": "the environment",
    "iam-role": "the role of the machine",
    "shared-credentials-file": "AWS's credentials file",
    "sso": "a sign-in of a person",
}

for _name in ("aiobotocore", "botocore"):  # at debug they log bodies, and so plaintexts
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Connection:
    """A client with its credentials. It connects when it is first asked."""

    client: Any
    session: Any
    region: str

    async def ask(self, operation: str, key: str, **parameters: object) -> Mapping[str, object]:
        """The answer to an operation on a key. Raises AnchorError."""
        method = getattr(self.client, xform_name(operation))
        try:
            answer: Mapping[str, object] = await method(KeyId=key, **parameters)
        except FAILURES as error:
            raise failed(error, self._asked(operation, key)) from None
        return answer

    async def describe(self, key: str) -> Key:
        """What DescribeKey says of a key. Raises AnchorError."""
        return Key.of(await self.ask("DescribeKey", key))

    @property
    def place(self) -> str:
        """``host:port`` of the endpoint."""
        return place_of(self.client.meta.endpoint_url)

    async def source_of_credentials(self) -> str:
        """Which link of AWS's chain gave the credentials."""
        credentials = await self.session.get_credentials()
        method = str(credentials.method) if credentials else "none"
        return _SOURCES.get(method, method)

    def _asked(self, operation: str, key: str) -> Ask:
        strange = self.region in self.place and not is_known_region(self.region)
        return Ask(operation, key, self.place, self.region if strange else "")


@dataclass(frozen=True, slots=True)
class Way:
    """The way to AWS KMS: from the settings, and where they are silent, by AWS's own chain."""

    region: str | None
    endpoint: str | None
    profile: str | None

    def session(self, deadline_s: float) -> Any:
        """A session of botocore. AWS's files are read here, so call it in a thread.

        Raises AnchorError.
        """
        try:
            session = AioSession(profile=self.profile)
            session.register_component("data_loader", models())
            session.set_default_client_config(_limits(deadline_s))
            session.get_scoped_config()
        except FAILURES as error:
            raise not_prepared(error) from None
        return session

    @asynccontextmanager
    async def connection(self, session: Any, key_region: str | None) -> AsyncIterator[Connection]:
        """A client with credentials; ``key_region`` is that of its ARN. Raises AnchorError."""
        region = self._region(session, key_region)
        async with AsyncExitStack() as stack:
            try:
                await _get_credentials(session)
                making = session.create_client("kms", region, endpoint_url=self.endpoint)
                client = await stack.enter_async_context(making)
            except FAILURES as error:
                raise not_prepared(error) from None
            _refuse_open_network(client.meta.endpoint_url)
            yield Connection(client, session, region)

    async def url(self, session: Any, key_region: str | None) -> str:
        """Where AWS KMS is asked; no credentials are looked for. Raises AnchorError."""
        try:
            async with session.create_client(
                "kms",
                self._region(session, key_region),
                endpoint_url=self.endpoint,
                config=AioConfig(signature_version=UNSIGNED),
            ) as client:
                return str(client.meta.endpoint_url)
        except FAILURES as error:
            raise not_prepared(error) from None

    def _region(self, session: Any, key_region: str | None) -> str:
        if self.region and key_region and self.region != key_region:
            raise Misconfigured(
                f"the key's ARN is of region {key_region}, and region is {self.region}",
                "a key is asked in its own region",
                "take one of the two out of the settings",
            )
        region = self.region or key_region or session.get_config_variable("region")
        if not region:
            raise no_region()
        return str(region)


async def _get_credentials(session: Any) -> None:
    """Get them now, so that a failure is not taken for one of AWS KMS."""
    credentials = await session.get_credentials()
    if credentials is not None:
        await credentials.get_frozen_credentials()


def first_hop(url: str) -> str:
    """The URL of what is connected to for ``url``: the proxy, where the environment has one."""
    return str(ProxyConfiguration(get_environ_proxies(url)).proxy_url_for(url) or url)


def place_of(url: str) -> str:
    """``host:port`` of a URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (80 if parts.scheme == 'http' else 443)}"


def _limits(deadline_s: float) -> AioConfig:
    """Bounds of all clients, also of those that get credentials. Who asks again is kluis."""
    return AioConfig(
        connect_timeout=_PATIENCE * deadline_s,
        read_timeout=_PATIENCE * deadline_s,
        retries={"mode": "standard", "total_max_attempts": 1},
        http_session_cls=_BoundedHttp,
        connector_args={"resolver": Resolver()},
    )


def _refuse_open_network(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise Misconfigured(
            f"the endpoint {place_of(url)} is not reached by https",
            "what the anchor opens would cross the network open",
            "take https, or an endpoint on this machine",
        )


class _BoundedHttp(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore ships no types
    """HTTP as aiobotocore does it, but no answer is read that is larger than any of AWS KMS."""

    async def send(self, request: Any) -> Any:
        request.stream_output = True  # it is read below
        response = await super().send(request)
        response.raw = _BoundedBody(response.raw)
        return response


class _BoundedBody:
    """The body of an answer, read when it is asked for."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def read(self) -> bytes:
        content = bytearray()
        try:
            async for chunk in self._response.content.iter_chunked(1 << 16):
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise Misconfigured(
                        f"AWS KMS answered with more than {MAX_ANSWER_BYTES} bytes",
                        "another service may listen there",
                        "check endpoint in the settings",
                    )
        finally:
            self._response.close()
        return bytes(content)

"""The types of ``kluis.toml``, and of all in it but the anchors."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, field_validator, model_validator

from kluis.addresses import is_loopback, split_address
from kluis.settings.anchors import AnchorSettings
from kluis.settings.servers import (
    HookSettings,
    KubernetesSettings,
    ServerSettings,
    WatchSettings,
)
from kluis.settings.types import (
    Addresses,
    AnchorName,
    ClientName,
    KeyName,
    KeyPath,
    Seconds,
    Settings,
)


class DirectorySettings(Settings):
    """Documents as files in a folder."""

    kind: Literal["directory"]
    path: Path


class KeySettings(Settings):
    """A key that kluis makes. Kinds that are imported are not declared.

    ``address`` is where the server is reached that ``kluis run`` unseals with it.
    """

    kind: Literal["transit", "static-seal"]
    address: Addresses = ()


class KeyringSettings(Settings):
    """A keyring: who opens it, and what it holds."""

    store: DirectorySettings
    opens: str
    keys: dict[KeyName, KeySettings] = Field(default_factory=dict)


class TlsSettings(Settings):
    """The facade's certificate; with ``client_ca``, clients may show theirs."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class LimitSettings(Settings):
    """What one facade bears. Above a limit a request is refused; the others are served."""

    body_bytes: Annotated[StrictInt, Field(ge=1024, le=16 * 1024 * 1024)] = 64 * 1024
    header_bytes: Annotated[StrictInt, Field(ge=1024, le=1024 * 1024)] = 16 * 1024
    headers: Annotated[StrictInt, Field(ge=8, le=1000)] = 64
    connections: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 16_384
    held: Annotated[StrictInt, Field(ge=0, le=1_000_000)] = 16_384
    hold_s: Annotated[float, Field(gt=0, le=55)] = 50.0
    request_s: Seconds = 10.0
    idle_s: Seconds = 120.0
    requests_per_s: Annotated[StrictInt, Field(ge=1)] = 50_000
    denials_per_s: Annotated[StrictInt, Field(ge=1)] = 20


class FacadeSettings(Settings):
    """The Transit API for servers' seals.

    ``address`` in the file, here ``known_as``, is where others reach it: behind a name or a proxy.
    """

    listen: str
    known_as: Addresses = Field(default=(), alias="address")
    tls: TlsSettings | Literal["off"]
    audit: Path | None = None
    limits: LimitSettings = LimitSettings()

    @field_validator("tls", mode="before")
    @classmethod
    def _tls(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "off":
            raise ValueError('must be a table with certificate and key, or "off"')
        return value

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        split_address(value)
        return value

    @model_validator(mode="after")
    def _plain_on_loopback_only(self) -> FacadeSettings:
        host, _ = self.address
        if self.tls == "off" and not is_loopback(host):
            raise ValueError(f'tls = "off" is for loopback only, and {host} is not')
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return split_address(self.listen)


class ClientSettings(Settings):
    """A server that may use some keys. ``address`` is where that server itself is reached."""

    keys: Annotated[tuple[KeyPath, ...], Field(min_length=1)]
    address: Addresses = ()
    certificate_san: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,512}$")] | None = None
    networks: tuple[str, ...] = ()

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({str(ipaddress.ip_network(network)) for network in value}))


class ServiceSettings(Settings):
    """The running service."""

    control: Path | None = None


class Configuration(Settings):
    """All of ``kluis.toml``."""

    anchors: dict[AnchorName, AnchorSettings] = Field(default_factory=dict)
    keyrings: dict[AnchorName, KeyringSettings] = Field(default_factory=dict)
    facade: FacadeSettings | None = None
    clients: dict[ClientName, ClientSettings] = Field(default_factory=dict)
    servers: dict[AnchorName, ServerSettings] = Field(default_factory=dict)
    wake: dict[AnchorName, HookSettings] = Field(default_factory=dict)
    kubernetes: KubernetesSettings = KubernetesSettings()
    watch: WatchSettings = WatchSettings()
    service: ServiceSettings = ServiceSettings()

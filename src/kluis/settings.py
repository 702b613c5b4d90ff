"""The types of ``kluis.toml``. Nothing here touches what the settings name."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    field_validator,
    model_validator,
)

from kluis.addresses import is_loopback, split_address
from kluis.keyring.policy import KEY_NAME_PATTERN, NAME_PATTERN

RESERVED = frozenset({"auth", "sys", "transit", "and", "or", "of"})


def _free(name: str) -> str:
    """The name itself, unless it means something in a rule or in the facade's paths."""
    if name in RESERVED:
        raise ValueError(f"the name {name!r} has a meaning of its own; take another")
    return name


AnchorName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$"), AfterValidator(_free)]
ClientName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
KeyName = Annotated[str, Field(pattern=f"^{KEY_NAME_PATTERN}$")]
KeyPath = Annotated[str, Field(pattern=f"^{NAME_PATTERN}/{KEY_NAME_PATTERN}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseModel):
    """Base of all settings: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSettings(Settings):
    """Where a secret comes from: exactly one of the three."""

    file: Path | None = None
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] | None = None

    def given(self) -> int:
        """How many sources are named."""
        return sum(value is not None for value in (self.file, self.env, self.credential))


class StaticSettings(SourceSettings):
    """A key of 32 bytes."""

    kind: Literal["static"]
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _one_source(self) -> StaticSettings:
        if self.given() != 1:
            raise ValueError("name exactly one of file, env and credential")
        return self


class PassphraseSettings(SourceSettings):
    """Something a person remembers; with a source it is read from there instead."""

    kind: Literal["passphrase"]
    memory_mib: Annotated[StrictInt, Field(ge=19, le=2048)] = 64
    iterations: Annotated[StrictInt, Field(ge=1, le=64)] = 3
    lanes: Annotated[StrictInt, Field(ge=1, le=16)] = 4
    timeout_s: Seconds = 60.0

    @model_validator(mode="after")
    def _at_most_one_source(self) -> PassphraseSettings:
        if self.given() > 1:
            raise ValueError("name at most one of file, env and credential")
        return self


class PeopleSettings(Settings):
    """People with paper shares (SLIP-39)."""

    kind: Literal["people"]
    threshold: Annotated[StrictInt, Field(ge=1, le=16)]
    shares: Annotated[StrictInt, Field(ge=1, le=16)]

    @model_validator(mode="after")
    def _possible(self) -> PeopleSettings:
        if self.threshold > self.shares:
            raise ValueError(f"{self.threshold} of {self.shares} shares can't be")
        if self.threshold == 1 and self.shares > 1:
            raise ValueError(
                "SLIP-39 has no 1 of several: declare one people anchor of 1 of 1 for each person"
            )
        return self


AnchorSettings = Annotated[
    StaticSettings | PassphraseSettings | PeopleSettings, Field(discriminator="kind")
]


class DirectorySettings(Settings):
    """Documents as files in a folder."""

    kind: Literal["directory"]
    path: Path


class KeySettings(Settings):
    """A key that kluis makes. Kinds that are imported are not declared."""

    kind: Literal["transit", "static-seal"]


class KeyringSettings(Settings):
    """A keyring: who opens it, and what it holds."""

    store: DirectorySettings
    opens: str
    keys: dict[KeyName, KeySettings] = {}


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
    """The Transit API for servers' seals."""

    listen: str
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
    """A server that may use some keys."""

    keys: Annotated[tuple[KeyPath, ...], Field(min_length=1)]
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

    anchors: dict[AnchorName, AnchorSettings] = {}
    keyrings: dict[AnchorName, KeyringSettings] = {}
    facade: FacadeSettings | None = None
    clients: dict[ClientName, ClientSettings] = {}
    service: ServiceSettings = ServiceSettings()

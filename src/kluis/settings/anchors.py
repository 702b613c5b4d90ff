"""The types of ``[anchors.…]`` in ``kluis.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, model_validator

from kluis.addresses import host_of, is_loopback
from kluis.settings.types import (
    Credential,
    Domain,
    HttpUrl,
    KeyName,
    MountPath,
    Seconds,
    Settings,
    Variable,
)


class SourceSettings(Settings):
    """Where a secret comes from: one of the three."""

    file: Path | None = None
    env: Variable | None = None
    credential: Credential | None = None

    def given(self) -> int:
        """How many sources are named."""
        return sum(value is not None for value in (self.file, self.env, self.credential))


class OneSource(SourceSettings):
    """Where a secret comes from: exactly one of the three."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.given() != 1:
            raise ValueError("name exactly one of file, env and credential")
        return self


class AnchorBase(Settings):
    """What every anchor may say: the ``domain`` is what it shares with others, and dies with."""

    domain: Domain | None = None


class MachineSettings(AnchorBase):
    """An anchor that kluis asks. ``heal``: seal its leaf anew alone, or at a person's word."""

    kind: str
    timeout_s: Seconds = 10.0
    ask_every_s: Annotated[float, Field(ge=0.5, le=86_400)] | None = None
    heal: Literal["auto", "ask"] = "auto"


class StaticSettings(OneSource, MachineSettings):
    """A key of 32 bytes."""

    kind: Literal["static"]


class PassphraseSettings(SourceSettings, MachineSettings):
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


class PinSettings(Settings):
    """Where a PIN comes from: at most one of the three."""

    pin_file: Path | None = None
    pin_env: Variable | None = None
    pin_credential: Credential | None = None

    def pin(self) -> SourceSettings | None:
        """The source of the PIN."""
        source = SourceSettings(
            file=self.pin_file, env=self.pin_env, credential=self.pin_credential
        )
        return source if source.given() else None

    @model_validator(mode="after")
    def _at_most_one_pin(self) -> Self:
        if (source := self.pin()) is not None and source.given() > 1:
            raise ValueError("name at most one of pin_file, pin_env and pin_credential")
        return self


class Tpm2Settings(PinSettings, MachineSettings):
    """A TPM 2.0, by its TCTI; with ``pcrs``, only while these registers stay as they are."""

    kind: Literal["tpm2"]
    device: Annotated[str, Field(min_length=1, max_length=512)] = "device:/dev/tpmrm0"
    pcrs: tuple[Annotated[StrictInt, Field(ge=0, le=23)], ...] = ()
    bank: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"


class Pkcs11Settings(PinSettings, MachineSettings):
    """A key in an HSM or smart card. ``key`` is a label, or ``id:`` and hex digits."""

    kind: Literal["pkcs11"]
    module: Path
    token: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    slot: Annotated[StrictInt, Field(ge=0)] | None = None
    key: Annotated[str, Field(min_length=1, max_length=256)]
    mechanism: Literal["AES-GCM", "RSA-OAEP", "RSA-OAEP-SHA1"] = "AES-GCM"

    @model_validator(mode="after")
    def _one_of_each(self) -> Pkcs11Settings:
        if (self.token is None) == (self.slot is None):
            raise ValueError("name the token by its label, or the slot by its number")
        if self.pin() is None:
            raise ValueError("name one of pin_file, pin_env and pin_credential")
        return self


class AwsKmsSettings(MachineSettings):
    """A symmetric key in AWS KMS; credentials come by the usual chain."""

    kind: Literal["awskms"]
    key: Annotated[str, Field(min_length=1, max_length=2048)]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    endpoint: HttpUrl | None = None
    profile: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    @model_validator(mode="after")
    def _plain_on_loopback_only(self) -> Self:
        if self.endpoint is not None:
            refuse_plain(self.endpoint, "the secret")
        return self


class TokenAuth(OneSource):
    """A token; in a file, another program may keep it fresh."""

    kind: Literal["token"]


class AppRoleAuth(OneSource):
    """A role id; the source is that of the secret id."""

    kind: Literal["approle"]
    role_id: Annotated[str, Field(min_length=1, max_length=256)]
    mount: MountPath = "approle"


class JwtAuth(OneSource):
    """A signed token (JWT)."""

    kind: Literal["jwt"]
    role: Annotated[str, Field(min_length=1, max_length=256)]
    mount: MountPath = "jwt"


PROJECTED = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class KubernetesAuth(OneSource):
    """The service account of the pod that kluis runs in."""

    kind: Literal["kubernetes"]
    role: Annotated[str, Field(min_length=1, max_length=256)]
    mount: MountPath = "kubernetes"

    @model_validator(mode="before")
    @classmethod
    def _projected_by_default(cls, given: Any) -> Any:
        named = isinstance(given, dict) and {"file", "env", "credential"} & given.keys()
        return given if named or not isinstance(given, dict) else {**given, "file": PROJECTED}


class CertificateAuth(Settings):
    """The client certificate of the connection."""

    kind: Literal["certificate"]
    role: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    mount: MountPath = "cert"


def refuse_plain(url: str, what: str) -> None:
    """Raises ValueError for an address without TLS that is not on this machine."""
    if url.startswith("http:") and not is_loopback(host_of(url)):
        raise ValueError(f"http:// is for loopback only: {what} would cross the network open")


AuthSettings = Annotated[
    TokenAuth | AppRoleAuth | JwtAuth | KubernetesAuth | CertificateAuth,
    Field(discriminator="kind"),
]


class TransitSettings(MachineSettings):
    """A key of the Transit engine of OpenBao, Vault, or another kluis."""

    kind: Literal["transit"]
    address: HttpUrl
    key: KeyName
    mount: MountPath = "transit"
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,256}$")] | None = None
    ca: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    auth: AuthSettings

    @model_validator(mode="after")
    def _certificate_with_key(self) -> TransitSettings:
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("name both certificate and certificate_key, or neither")
        if self.auth.kind == "certificate" and self.certificate is None:
            raise ValueError("auth by certificate needs certificate and certificate_key")
        refuse_plain(self.address, "the token")
        return self


class TangSettings(MachineSettings):
    """A Tang server, pinned by the thumbprint of one of its signing keys (S256)."""

    kind: Literal["tang"]
    url: HttpUrl
    thumbprint: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")] | None = None


class PeopleSettings(AnchorBase):
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
    StaticSettings
    | PassphraseSettings
    | Tpm2Settings
    | Pkcs11Settings
    | AwsKmsSettings
    | TransitSettings
    | TangSettings
    | PeopleSettings,
    Field(discriminator="kind"),
]

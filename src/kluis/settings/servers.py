"""The types of ``[servers.…]``, ``[wake.…]``, ``[kubernetes]`` and ``[watch]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StrictInt, ValidationInfo, field_validator, model_validator

from kluis.addresses import host_of, is_loopback, is_plain_loopback, split_address
from kluis.settings.anchors import OneSource
from kluis.settings.types import (
    Addresses,
    AnchorName,
    HttpUrl,
    KeyPath,
    MountPath,
    Seconds,
    Settings,
)

Label = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")]
Selector = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/=!,() -]{1,512}$")]
Pin = Annotated[str, Field(pattern=r"^sha256:[A-Za-z0-9+/]{43}=$")]
Count = Annotated[StrictInt, Field(ge=1, le=255)]
_LAST_UID: Final = 2**32 - 2
_NOBODY: Final = 65_534
Workload = Annotated[
    str,
    Field(pattern=r"^(?:deployment|statefulset|daemonset)/[a-z0-9.-]{1,253}/[a-z0-9.-]{1,253}$"),
]


class PodsSettings(Settings):
    """The pods of a server: one node each."""

    namespace: Label
    selector: Selector
    port: Annotated[StrictInt, Field(ge=1, le=65_535)] = 8200
    scheme: Literal["https", "http"] = "https"


class ServerSettings(Settings):
    """A server that kluis watches, and unseals where ``unseal`` names its shares.

    ``pin``, ``user``, ``cluster_id``, ``threshold`` and ``shares`` are written by
    ``kluis server add``.
    """

    addresses: Addresses = ()
    dns: str | None = None
    kubernetes: PodsSettings | None = None
    server_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] | None = None
    ca: Path | None = None
    pin: Pin | None = None
    user: int | str | None = None
    cluster_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None
    threshold: Count | None = None
    shares: Count | None = None
    unseal: KeyPath | None = None
    recovery: KeyPath | None = None
    on_seal: Literal["hold", "unseal"] = "hold"
    wake: tuple[AnchorName, ...] = ()

    @field_validator("dns")
    @classmethod
    def _dns(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("user", mode="before")
    @classmethod
    def _user(cls, value: object, info: ValidationInfo) -> object:
        named = isinstance(value, str) and re.fullmatch(r"[^\s:]{1,256}", value)
        if not named and not (type(value) is int and 0 <= value <= _LAST_UID):
            raise ValueError('it should be the name of a user, like "openbao", or a number')
        if value == _NOBODY:
            raise ValueError(
                f"{_NOBODY} is also every user that the kernel has no number for: it proves nothing"
            )
        if not any(map(is_plain_loopback, info.data.get("addresses", ()))):
            raise ValueError(
                "no address is http:// on loopback, and elsewhere a pin says who it is"
            )
        return value

    @model_validator(mode="after")
    def _one_way_to_it(self) -> ServerSettings:
        given = (bool(self.addresses), self.dns is not None, self.kubernetes is not None)
        if sum(given) != 1:
            raise ValueError("name exactly one of addresses, dns and kubernetes")
        return self

    @model_validator(mode="after")
    def _no_share_in_the_clear(self) -> ServerSettings:
        plain = [a for a in self.addresses if a.startswith("http:") and not _on_loopback(a)]
        if self.kubernetes is not None and self.kubernetes.scheme == "http":
            plain.append("http")
        if self.unseal is not None and plain:
            raise ValueError("shares are never sent over plain http beyond loopback; use https")
        return self


def contested(servers: Mapping[str, ServerSettings]) -> dict[str, tuple[str, ...]]:
    """Keys with the shares of several servers, and these; but for what is known as one cluster."""
    clusters: dict[str, dict[str, str | None]] = {}
    for name, server in servers.items():
        for key in {server.unseal, server.recovery} - {None}:
            clusters.setdefault(str(key), {})[name] = server.cluster_id
    return {
        key: tuple(sorted(of))
        for key, of in sorted(clusters.items())
        if len(of) > 1 and (None in of.values() or len({*of.values()}) > 1)
    }


def _on_loopback(url: str) -> bool:
    return is_loopback(host_of(url))


class HookBase(Settings):
    """A hook that runs when a server is back; it is given up after ``timeout_s``."""

    timeout_s: Seconds = 120.0


class ExternalSecretsHook(HookBase):
    """Wake the External Secrets Operator: stores first, then what is not fresh.

    ``stores`` are names of ClusterSecretStores, or NAMESPACE/NAME of SecretStores; without any,
    all whose provider is a Vault or an OpenBao. With ``login_role`` and ``login_service_account``
    (NAMESPACE/NAME) a test login has to succeed first, at ``auth/<login_mount>/login``.
    """

    kind: Literal["external-secrets"]
    stores: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+(?:/[a-z0-9.-]+)?$")], ...] = ()
    login_role: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,256}$")] | None = None
    login_service_account: (
        Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,253}/[a-z0-9.-]{1,253}$")] | None
    ) = None
    login_mount: MountPath = "kubernetes"
    login_audience: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,256}$")] | None = None
    timeout_s: Seconds = 300.0

    @model_validator(mode="after")
    def _whole_login(self) -> ExternalSecretsHook:
        if (self.login_role is None) != (self.login_service_account is None):
            raise ValueError("name login_role and login_service_account together, or neither")
        return self


class RolloutHook(HookBase):
    """Restart workloads, each written ``deployment/NAMESPACE/NAME``, and wait until they are."""

    kind: Literal["rollout"]
    workloads: Annotated[tuple[Workload, ...], Field(min_length=1, max_length=64)]
    timeout_s: Seconds = 300.0


class WebhookHook(HookBase):
    """POST a JSON object to a URL. ``bearer`` is where a token for it comes from."""

    kind: Literal["webhook"]
    url: HttpUrl
    bearer: OneSource | None = None
    ca: Path | None = None
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _no_token_in_the_clear(self) -> WebhookHook:
        if self.bearer is not None and self.url.startswith("http:") and not _on_loopback(self.url):
            raise ValueError("a token is never sent over plain http beyond loopback; use https")
        return self


class CommandHook(HookBase):
    """Run a program, without a shell. It gets KLUIS_SERVER in its environment, and no secret."""

    kind: Literal["command"]
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout_s: Seconds = 60.0


HookSettings = Annotated[
    ExternalSecretsHook | RolloutHook | WebhookHook | CommandHook, Field(discriminator="kind")
]


class KubernetesSettings(Settings):
    """How the Kubernetes API is reached: by a kubeconfig, else by the pod's own account."""

    kubeconfig: Path | None = None
    context: str | None = None


class WatchSettings(Settings):
    """``kluis watch``: where it tells its metrics and its health: host:port."""

    listen: str | None = None

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

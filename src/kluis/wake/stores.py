"""Stores of the External Secrets Operator: which are woken, and which are ready.

Of its API group ``external-secrets.io``, version ``v1``. A store whose provider is ``vault`` or
``openBao`` reads from a server that kluis may watch. One with ``spec.controller`` belongs to
another operator, and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kluis.kubernetes.objects import Object, Resource, condition, member, name, namespace, text

GROUP: Final = "external-secrets.io"
VERSION: Final = "v1"
CLUSTER_STORES: Final = Resource(GROUP, VERSION, "clustersecretstores")
STORES: Final = Resource(GROUP, VERSION, "secretstores")
PROVIDERS: Final = ("vault", "openBao")
WOKEN: Final = "kluis/woken"
"""The annotation by which a store is woken: the operator validates it anew after any change."""


class StoreKey(NamedTuple):
    """A SecretStore by its namespace and name; without a namespace a ClusterSecretStore."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def path(self) -> str:
        """Where it is in the API."""
        return (STORES if self.namespace else CLUSTER_STORES).path(self.namespace, self.name)

    @property
    def listed_at(self) -> tuple[str, str]:
        """The collections that it is listed in: all, and those of its namespace."""
        resource = STORES if self.namespace else CLUSTER_STORES
        return resource.path(), resource.path(self.namespace)


def parse_key(said: str) -> StoreKey:
    """A store as kluis.toml names it: NAME, or NAMESPACE/NAME."""
    within, _, own = said.rpartition("/")
    return StoreKey(within, own)


def key_of(item: Object) -> StoreKey:
    """The key of a store as it came."""
    return StoreKey(namespace(item), name(item))


def collections(named: Sequence[StoreKey]) -> Sequence[str]:
    """Where stores are looked for: everywhere, or only where those are that were named."""
    if not named:
        return CLUSTER_STORES.path(), STORES.path()
    paths = [(STORES if key.namespace else CLUSTER_STORES).path(key.namespace) for key in named]
    return tuple(dict.fromkeys(paths))


def is_ready(item: Object) -> bool:
    """Whether the operator could log in there when it tried last."""
    return text(condition(item, "Ready"), "status") == "True"


@dataclass(frozen=True, slots=True)
class Choice:
    """The stores to wake, and whether each is ready; those of others; those that are not there."""

    ours: Mapping[StoreKey, bool]
    left: Sequence[StoreKey] = ()
    missing: Sequence[StoreKey] = ()


def choose(items: Iterable[Object], named: Sequence[StoreKey]) -> Choice:
    """Of all stores those that are named; without names those of a Vault or an OpenBao."""
    found = {key_of(item): item for item in items if _wanted(item, named)}
    return Choice(
        {key: is_ready(item) for key, item in found.items() if not _of_others(item)},
        [key for key, item in found.items() if _of_others(item)],
        [key for key in named if key not in found],
    )


def _wanted(item: Object, named: Sequence[StoreKey]) -> bool:
    if named:
        return key_of(item) in named
    provider = member(item, "spec", "provider")
    return any(kind in provider for kind in PROVIDERS)


def _of_others(item: Object) -> bool:
    return bool(text(item, "spec", "controller"))

"""ExternalSecrets: which are fresh after a recovery, which can be woken, and how.

The operator refreshes one at once when an annotation of it changes. That has no effect on one that
is created once, or that has an interval of 0 and was synced before. Those of a
ClusterExternalSecret get their annotations from it, so it is the parent that is annotated. One
whose values a generator makes would get new values; it is woken only when it failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from kluis.kubernetes.objects import (
    Object,
    Resource,
    condition,
    leaving,
    member,
    members,
    moment,
    name,
    namespace,
    text,
    value,
)
from kluis.wake.stores import GROUP, VERSION, StoreKey

SECRETS: Final = Resource(GROUP, VERSION, "externalsecrets")
PARENTS: Final = Resource(GROUP, VERSION, "clusterexternalsecrets")
FORCE_SYNC: Final = "force-sync"
PARENT_FORCE_SYNC: Final = "external-secrets.io/force-sync"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
SERVERS_GENERATOR: Final = "VaultDynamicSecret"
"""The generator that asks a server by itself, without a store."""


class SecretKey(NamedTuple):
    """An ExternalSecret by its namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def listed_at(self) -> tuple[str, str]:
        """The collections that it is listed in: all, and those of its namespace."""
        return SECRETS.path(), SECRETS.path(self.namespace)


class Target(NamedTuple):
    """What is annotated to wake an ExternalSecret, and with which key."""

    path: str
    annotation: str


class Standing(StrEnum):
    """How an ExternalSecret stands after a recovery."""

    FRESH = "fresh"
    ASLEEP = "asleep"
    ONCE = "created once, or never refreshed again"
    GENERATED = "made by a generator"


@dataclass(frozen=True, slots=True)
class Secret:
    """What counts of an ExternalSecret. ``parent`` is its ClusterExternalSecret, or empty.

    ``sync`` changes whenever the operator refreshed it, whatever its clock says.
    """

    key: SecretKey
    stores: frozenset[StoreKey]
    generators: frozenset[str]
    parent: str
    ready: bool
    once: bool
    refreshed: datetime | None
    sync: tuple[str, str]

    @property
    def target(self) -> Target:
        """What wakes it."""
        if self.parent:
            return Target(PARENTS.path(name=self.parent), PARENT_FORCE_SYNC)
        return Target(SECRETS.path(*self.key), FORCE_SYNC)

    def standing(self, since: datetime) -> Standing:
        """How it stands after a server came back at ``since``; refresh times are whole seconds."""
        if self.once and self.sync[1]:
            return Standing.ONCE
        refreshed = self.refreshed is not None and self.refreshed >= since.replace(microsecond=0)
        if self.ready and refreshed:
            return Standing.FRESH
        return Standing.GENERATED if self.ready and self.generators else Standing.ASLEEP

    def refreshed_since(self, before: Secret) -> bool:
        """Whether the operator refreshed it, and well, since it was seen as ``before``."""
        return self.ready and self.sync != before.sync


def secret_of(item: Object) -> Secret:
    """An ExternalSecret as it came."""
    within = namespace(item)
    return Secret(
        key=SecretKey(within, name(item)),
        stores=frozenset(_stores(item, within)),
        generators=frozenset(_generators(item)),
        parent=_parent(item),
        ready=text(condition(item, "Ready"), "status") == "True",
        once=_once(item),
        refreshed=moment(item, "status", "refreshTime"),
        sync=(text(item, "status", "refreshTime"), text(item, "status", "syncedResourceVersion")),
    )


def concerned(
    items: Iterable[Object], stores: Iterable[StoreKey], *, dynamic: bool
) -> Iterator[Secret]:
    """Those that read from these stores; ``dynamic``: and from servers without a store."""
    known = frozenset(stores)
    for item in items:
        secret = secret_of(item)
        by_generator = dynamic and SERVERS_GENERATOR in secret.generators
        if not leaving(item) and (secret.stores & known or by_generator):
            yield secret


def collections(stores: Iterable[StoreKey], most: int) -> Sequence[str]:
    """Where ExternalSecrets of these stores can be; one namespace by another up to ``most``."""
    within = {key.namespace for key in stores}
    if not within or "" in within or len(within) > most:
        return (SECRETS.path(),)
    return tuple(SECRETS.path(one) for one in sorted(within))


def _references(item: Object) -> Iterator[Object]:
    """Every place in the spec that may name a store or a generator."""
    for entry in (*members(item, "spec", "data"), *members(item, "spec", "dataFrom")):
        yield member(entry, "sourceRef")


def _stores(item: Object, within: str) -> Iterator[StoreKey]:
    named = [member(item, "spec", "secretStoreRef")]
    named += [member(one, "storeRef") for one in _references(item)]
    for reference in named:
        if own := text(reference, "name"):
            cluster = text(reference, "kind") == "ClusterSecretStore"
            yield StoreKey("" if cluster else within, own)


def _generators(item: Object) -> Iterator[str]:
    for reference in _references(item):
        if kind := text(member(reference, "generatorRef"), "kind"):
            yield kind


def _parent(item: Object) -> str:
    """Its controller, where that is a ClusterExternalSecret. The name may be anything, here."""
    for owner in members(item, "metadata", "ownerReferences"):
        group = text(owner, "apiVersion").partition("/")[0]
        own = text(owner, "name")
        if (group, text(owner, "kind")) != (GROUP, "ClusterExternalSecret"):
            continue
        if value(owner, "controller") is True and _NAME.fullmatch(own):
            return own
    return ""


def _once(item: Object) -> bool:
    """Whether no refresh follows the first: by the policy, or by an interval of 0 (Go's way)."""
    policy = text(item, "spec", "refreshPolicy") or "Periodic"
    interval = value(item, "spec", "refreshInterval")
    if policy == "Periodic" and isinstance(interval, str) and interval:
        return interval.startswith("-") or re.search("[1-9]", interval) is None
    return policy == "CreatedOnce"

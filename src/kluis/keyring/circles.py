"""Circles of trust: keyrings whose anchors are served by servers that those keyrings unseal.

A transit anchor is of use only while the server behind it is unsealed. After an outage of all of
them at once, what opens is a fixpoint: first the keyrings that need no such anchor, then those
whose anchors are served by the servers that the first ones unseal, and so on. What is left out
never comes back. Known is what configurations say; a server that none of them names counts as up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum

from kluis.keyring import policy, trust
from kluis.keyring.policy import Policy
from kluis.keyring.trust import Names


@dataclass(frozen=True, slots=True, order=True)
class KeyringId:
    """A keyring's name, and the configuration that declares it; '' is the one explained."""

    home: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.home}" if self.home else self.name


@dataclass(frozen=True, slots=True)
class Supply:
    """What a transit anchor hangs on: a server, up only while all these keyrings are open."""

    address: str
    server: str
    needs: frozenset[KeyringId]


@dataclass(frozen=True, slots=True)
class Station:
    """A keyring as a place in the graph."""

    rule: Policy
    attended: frozenset[str]
    """Anchors that open only when a person comes."""
    supplies: Mapping[str, Supply]
    """What its transit anchors hang on, by their names; only those whose server is known."""


Graph = Mapping[KeyringId, Station]


class Return(IntEnum):
    """How something comes back after an outage of everything; the greater the better."""

    NEVER = 0
    PEOPLE = 1
    ITSELF = 2


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a circle: this keyring asks this anchor, whose server that keyring unseals."""

    keyring: KeyringId
    anchor: str
    supply: Supply
    to: KeyringId


@dataclass(frozen=True, slots=True)
class Circle:
    """An anchor that leads back to its own keyring, or to one that does not come back."""

    anchor: str
    hops: tuple[Hop, ...]
    helps: Return
    """When the anchor can answer after an outage of everything, its own keyring still locked."""

    @property
    def closed(self) -> bool:
        """Whether it leads back to its own keyring."""
        return self.hops[-1].to == self.hops[0].keyring


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A keyring after an outage of every server that these configurations unseal."""

    returns: Return
    before: Return
    """The same, had no server been down."""
    ways: tuple[Names, ...]
    """What opens it then, people included; smallest sets first."""
    circles: tuple[Circle, ...]


def cold_start(graph: Graph, keyring: KeyringId) -> ColdStart:
    """What an outage of everything means for a keyring."""
    station = graph[keyring]
    alone = _opened(graph, people=False, but=keyring)
    helped = _opened(graph, people=True, but=keyring)
    unattended, everything = _available(station, alone, False), _available(station, helped, True)
    returns = _grade(station.rule, unattended, everything)
    all_names = frozenset(policy.names(station.rule))
    circles = [
        Circle(anchor, hops, Return((anchor in unattended) + (anchor in everything)))
        for anchor, supply in sorted(station.supplies.items())
        if (hops := _back(graph, keyring, anchor, supply.needs - helped or supply.needs - alone))
    ]
    return ColdStart(
        returns,
        _grade(station.rule, all_names - station.attended, all_names),
        trust.simulate(station.rule, everything).ways,
        tuple(circles),
    )


def _grade(rule: Policy, unattended: AbstractSet[str], everything: AbstractSet[str]) -> Return:
    return Return(trust.opens_with(rule, unattended) + trust.opens_with(rule, everything))


def _available(station: Station, opened: AbstractSet[KeyringId], people: bool) -> frozenset[str]:
    """The anchors that can answer while these keyrings are open."""
    return frozenset(
        name
        for name in policy.names(station.rule)
        if (people or name not in station.attended)
        and (name not in station.supplies or station.supplies[name].needs <= opened)
    )


def _opened(graph: Graph, *, people: bool, but: KeyringId) -> frozenset[KeyringId]:
    """The keyrings that open from nothing while one of them stays locked."""
    opened: frozenset[KeyringId] = frozenset()
    while True:
        more = opened | {
            keyring
            for keyring, station in graph.items()
            if keyring != but
            and trust.opens_with(station.rule, _available(station, opened, people))
        }
        if more == opened:
            return opened
        opened = more


def _back(
    graph: Graph, keyring: KeyringId, anchor: str, stuck: AbstractSet[KeyringId]
) -> tuple[Hop, ...]:
    """The shortest way from an anchor back to its keyring; else to one that is stuck, if any."""
    first = [hop for hop in _hops(graph, keyring) if hop.anchor == anchor]
    ways: list[tuple[Hop, ...]] = [(hop,) for hop in first]
    seen: set[KeyringId] = set()
    while ways:
        way = ways.pop(0)
        to = way[-1].to
        if to == keyring:
            return way
        if to not in seen:
            seen.add(to)
            ways.extend((*way, hop) for hop in _hops(graph, to))
    return next(((hop,) for hop in first if hop.to in stuck), ())


def _hops(graph: Graph, keyring: KeyringId) -> Iterator[Hop]:
    for anchor, supply in sorted(graph[keyring].supplies.items()):
        for to in sorted(supply.needs):
            yield Hop(keyring, anchor, supply, to)

"""What transit anchors hang on, as far as configurations tell: which keyrings their servers need.

A server is known by the ``address`` of a client or of a key, or by ``[servers.…]`` that its shares
are pushed to; a facade by where it listens and by its own ``address``. Loopback is looked up in
the installation itself before the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kluis.addresses import (
    LOOPBACK,
    Endpoint,
    canonical_host,
    endpoint,
    is_wildcard,
    split_address,
)
from kluis.keyring import policy
from kluis.keyring.circles import Graph, KeyringId, Station, Supply
from kluis.keyring.policy import Policy
from kluis.settings.anchors import AnchorSettings, PassphraseSettings, TransitSettings
from kluis.settings.root import Configuration
from kluis.settings.servers import ServerSettings


@dataclass(frozen=True, slots=True)
class Home:
    """A kluis installation: what its configuration says, and what to call it."""

    name: str
    settings: Configuration


def graph_of(homes: Sequence[Home]) -> Graph:
    """The keyrings of all installations, and what their anchors hang on."""
    return {
        KeyringId(home.name, name): _station(home, policy.parse(keyring.opens), homes)
        for home in homes
        for name, keyring in home.settings.keyrings.items()
    }


def _station(home: Home, rule: Policy, homes: Sequence[Home]) -> Station:
    anchors = {name: home.settings.anchors[name] for name in policy.names(rule)}
    supplies = {
        name: supply
        for name, anchor in anchors.items()
        if isinstance(anchor, TransitSettings) and (supply := _supply(home, anchor, homes))
    }
    attended = frozenset(name for name, anchor in anchors.items() if _is_attended(anchor))
    return Station(rule, attended, supplies)


def _is_attended(anchor: AnchorSettings) -> bool:
    if isinstance(anchor, PassphraseSettings):
        return not anchor.given()
    return anchor.kind == "people"


def _supply(home: Home, anchor: TransitSettings, homes: Sequence[Home]) -> Supply | None:
    """What serves an anchor: of its own installation, else of another."""
    wanted = endpoint(anchor.address)
    for known in ([home], [other for other in homes if other is not home]):
        found = [
            (server, keyrings)
            for each in known
            for server, endpoints, keyrings in _servers(each, anchor.mount)
            if wanted in endpoints
        ]
        if found:
            needs = frozenset[KeyringId]().union(*(keyrings for _, keyrings in found))
            return Supply(anchor.address, found[0][0], needs)
    return None


Server = tuple[str, frozenset[Endpoint], frozenset[KeyringId]]
"""In words, where it is reached, and the keyrings without which it is down."""


def _servers(home: Home, mount: str) -> Iterator[Server]:
    """The servers of an installation, as whoever asks this mount sees them."""
    settings, of_home = home.settings, f" of {home.name}" if home.name else ""
    for name, client in settings.clients.items():
        owners = {path.partition("/")[0] for path in client.keys}
        yield f"{name}{of_home}", _endpoints(client.address), _keyrings(home, owners)
    for owner, keyring in settings.keyrings.items():
        for name, key in keyring.keys.items():
            yield f"{name}{of_home}", _endpoints(key.address), _keyrings(home, {owner})
    for name, declared in settings.servers.items():
        if declared.unseal is not None:  # while it is sealed it serves nothing
            owner = declared.unseal.partition("/")[0]
            yield f"{name}{of_home}", _reached(declared), _keyrings(home, {owner})
    if settings.facade is not None:
        served = {mount} if mount in settings.keyrings else set(settings.keyrings)
        host, port = settings.facade.address
        listens = Endpoint(LOOPBACK if is_wildcard(host) else canonical_host(host), port)
        reached = _endpoints(settings.facade.known_as) | {listens}
        yield f"the facade{of_home}", reached, _keyrings(home, served)


def _reached(server: ServerSettings) -> frozenset[Endpoint]:
    """Where a watched server is reached, as far as that is written down."""
    if server.dns is None:
        return _endpoints(server.addresses)
    host, port = split_address(server.dns)
    return frozenset({Endpoint(canonical_host(host), port)})


def _endpoints(addresses: Iterable[str]) -> frozenset[Endpoint]:
    return frozenset(endpoint(address) for address in addresses)


def _keyrings(home: Home, names: Iterable[str]) -> frozenset[KeyringId]:
    return frozenset(KeyringId(home.name, name) for name in names)

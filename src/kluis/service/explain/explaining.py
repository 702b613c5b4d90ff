"""All that can be said of who opens a keyring, from configurations alone. No anchor is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kluis.errors import UsageError
from kluis.keyring import circles, domains, policy, trust
from kluis.keyring.circles import Circle, ColdStart, KeyringId
from kluis.keyring.domains import Places
from kluis.keyring.policy import Policy
from kluis.keyring.strict import JSON
from kluis.keyring.trust import Trust
from kluis.keyring.words import People
from kluis.service.explain import supplies
from kluis.service.explain.cautions import Caution, cautions, chain, same_shares
from kluis.service.explain.supplies import Home
from kluis.settings.anchors import AnchorSettings
from kluis.settings.root import Configuration
from kluis.settings.servers import contested


@dataclass(frozen=True, slots=True)
class Explained:
    """A keyring's rule, and what follows from it."""

    keyring: str
    rule: Policy
    people: People
    found: Trust
    places: Places
    cold: ColdStart
    warnings: tuple[Caution, ...]


def explain(homes: Sequence[Home], keyring: str) -> Explained:
    """A keyring of the first installation, among all of them. Raises TooManySets."""
    settings = homes[0].settings
    rule = policy.parse(settings.keyrings[keyring].opens)
    found, people = trust.explain(rule), people_of(settings)
    places = domains.places(rule, found, domains_of(settings), people)
    cold = circles.cold_start(supplies.graph_of(homes), KeyringId(homes[0].name, keyring))
    warned = cautions(keyring, rule, found, people, places, cold)
    warned += tuple(same_shares(keyring, contested(settings.servers)))
    return Explained(keyring, rule, people, found, places, cold, warned)


def people_of(settings: Configuration) -> dict[str, tuple[int, int]]:
    """Threshold and number of shares, by the names of people."""
    return {
        name: (anchor.threshold, anchor.shares)
        for name, anchor in settings.anchors.items()
        if anchor.kind == "people"
    }


def domains_of(settings: Configuration) -> dict[str, str]:
    """The domains of those anchors that have one."""
    return {
        name: anchor.domain
        for name, anchor in settings.anchors.items()
        if anchor.domain is not None
    }


def chosen(settings: Configuration, keyring: str | None) -> tuple[str, ...]:
    """The keyring that was named; all of them when none was. Raises UsageError."""
    names = tuple(settings.keyrings)
    if keyring is None and names:
        return names
    if keyring in settings.keyrings:
        return (keyring,)
    raise UsageError(
        f"there is no keyring {keyring}" if keyring else "kluis.toml declares no keyring",
        f"kluis.toml declares: {', '.join(sorted(names)) or 'none'}",
        "correct the name" if names else "declare one: [keyrings.homelab]",
    )


def as_json(explained: Explained, anchors: dict[str, AnchorSettings]) -> dict[str, JSON]:
    """What ``kluis explain --output json`` prints of a keyring: a contract, docs/RUNNING.md."""
    found, places, cold = explained.found, explained.places, explained.cold
    names = sorted(policy.names(explained.rule))
    return {
        "opens": policy.show(explained.rule),
        "anchors": {name: _anchor(anchors[name]) for name in names},
        "quorums": [[*quorum] for quorum in found.quorums],
        "cuts": [[*cut] for cut in found.cuts],
        "may_be_lost": found.may_be_lost,
        "domains": {
            domain.name: {
                "anchors": [*domain.anchors],
                "loss_locks": domain.loss_locks,
                "theft_opens": domain.theft_opens,
            }
            for domain in places.domains
        },
        "places": {"may_be_lost": places.may_be_lost, "to_steal": places.to_steal},
        "cold_start": cold.returns.name.lower(),
        "circles": [_circle(circle) for circle in cold.circles],
        "warnings": [_warning(warning) for warning in explained.warnings],
    }


def _anchor(anchor: AnchorSettings) -> dict[str, JSON]:
    said: dict[str, JSON] = {"kind": anchor.kind, "domain": anchor.domain}
    if anchor.kind == "people":
        said |= {"threshold": anchor.threshold, "shares": anchor.shares}
    return said


def _circle(circle: Circle) -> JSON:
    hops: list[JSON] = [
        {
            "keyring": str(hop.keyring),
            "anchor": hop.anchor,
            "address": hop.supply.address,
            "server": hop.supply.server,
            "needs": str(hop.to),
        }
        for hop in circle.hops
    ]
    return {
        "anchor": circle.anchor,
        "closed": circle.closed,
        "helps": circle.helps.name.lower(),
        "hops": hops,
        "words": chain(circle),
    }


def _warning(warning: Caution) -> JSON:
    return {
        "code": warning.code,
        "anchors": [*warning.anchors],
        "domain": warning.domain,
        "seen": warning.seen,
        "means": warning.means,
        "next": warning.next_step,
    }

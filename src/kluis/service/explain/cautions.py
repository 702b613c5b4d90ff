"""What a rule should be warned of. The codes are a contract; the words are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kluis.keyring import trust
from kluis.keyring.circles import Circle, ColdStart, Return
from kluis.keyring.domains import Places
from kluis.keyring.policy import Policy
from kluis.keyring.trust import Names, Trust
from kluis.keyring.words import People, joined, losing, opening, together, ways


@dataclass(frozen=True, slots=True)
class Caution:
    """A warning: what was seen, what it means, what to do next; and whom it is about."""

    code: str
    seen: str
    means: str
    next_step: str
    anchors: Names = ()
    domain: str | None = None


def single_losses(found: Trust, people: People) -> Names:
    """The anchors of which one loss, of a thing or of one share, locks for good."""
    return tuple(
        name for name in found.indispensable if name not in people or _spare(people[name]) == 0
    )


def single_thefts(found: Trust, people: People) -> Names:
    """The anchors of which one theft, of a thing or of one share, opens."""
    return tuple(name for name in found.alone if name not in people or people[name][0] == 1)


def _spare(shares: tuple[int, int]) -> int:
    return shares[1] - shares[0]


def cautions(
    keyring: str, rule: Policy, found: Trust, people: People, places: Places, cold: ColdStart
) -> tuple[Caution, ...]:
    """All that a keyring should be warned of."""
    losses, thefts = single_losses(found, people), single_thefts(found, people)
    return (
        *(_single_loss(keyring, name, people) for name in losses),
        *(_single_theft(keyring, name, people) for name in thefts),
        *_domain_losses(keyring, places, losses),
        *_domain_thefts(keyring, rule, places, thefts, people),
        *_cold_start(keyring, cold),
    )


def _single_loss(keyring: str, name: str, people: People) -> Caution:
    return Caution(
        "single-loss",
        f"{losing(name, people)} is a single point of loss",
        f"without it {keyring} never opens again, and what {keyring} sealed is lost too",
        "add another way with 'or': paper shares of some people, for example",
        (name,),
    )


def _single_theft(keyring: str, name: str, people: People) -> Caution:
    return Caution(
        "single-theft",
        f"{opening(name, people)} opens {keyring} alone",
        f"whoever has it and the document has every key of {keyring}",
        "ask for a second one with 'and' or '2 of (…)', or guard it like all that it opens",
        (name,),
    )


def _domain_losses(keyring: str, places: Places, known: Names) -> Iterator[Caution]:
    """Not those that follow from a single point of loss in the domain."""
    for domain in places.domains:
        if domain.loss_locks and not set(known) & set(domain.anchors):
            yield Caution(
                "domain-loss",
                f"without {domain.name}, {keyring} does not open",
                f"{joined(domain.anchors)} fail{'s' * (len(domain.anchors) == 1)} together"
                f" with {domain.name}: locked until it is back, for good if it never is",
                "add a way in another place with 'or'",
                domain.anchors,
                domain.name,
            )


def _domain_thefts(
    keyring: str, rule: Policy, places: Places, known: Names, people: People
) -> Iterator[Caution]:
    """Not those that follow from a single point of theft in the domain."""
    for domain in places.domains:
        if domain.theft_opens and not set(known) & set(domain.anchors):
            enough = trust.simulate(rule, frozenset(domain.anchors)).ways[0]
            yield Caution(
                "domain-theft",
                f"a thief in {domain.name} has enough to open {keyring}",
                f"{together(enough, people)} are all there",
                "keep one of them elsewhere, or ask for one more from another place",
                domain.anchors,
                domain.name,
            )


def _cold_start(keyring: str, cold: ColdStart) -> Iterator[Caution]:
    """A keyring that comes back worse than it would, had no server been down."""
    if cold.returns is cold.before:
        return
    helpless = [circle for circle in cold.circles if circle.helps < cold.before]
    means = "; ".join(chain(circle) for circle in helpless)
    anchors = tuple(circle.anchor for circle in helpless)
    if cold.returns is Return.NEVER:
        yield Caution(
            "circle",
            f"after an outage of everything {keyring} never comes back",
            means,
            "add a way that needs none of these servers with 'or': paper shares, for example",
            anchors,
        )
    else:
        yield Caution(
            "cold-start",
            f"after an outage of everything {keyring} waits for people",
            means,
            "add an anchor that needs none of these servers, or have the people ready",
            anchors,
        )


def same_shares(keyring: str, contested: Mapping[str, Names]) -> Iterator[Caution]:
    """A key of the keyring from which several servers are to get shares."""
    for key, servers in contested.items():
        if key.partition("/")[0] == keyring:
            yield Caution(
                "same-shares",
                f"{joined(servers)} are declared with the same shares, {key}",
                "two clusters never have the same: one would be shown the shares of the other",
                "name another key for one of them; if they are one cluster, write its cluster_id",
            )


def chain(circle: Circle) -> str:
    """The way of a circle, in words."""
    parts = []
    for number, hop in enumerate(circle.hops):
        whose = f"{hop.keyring}'s {hop.anchor}" if number else hop.anchor
        parts.append(
            f"{whose} is served by {hop.supply.server} ({hop.supply.address}),"
            f" which works only while {hop.to} is open"
        )
    if not circle.closed:
        end = "never comes back" if circle.helps is Return.NEVER else "waits for people"
        parts.append(f"{circle.hops[-1].to} {end}")
    return "; ".join(parts)


def harmless(keyring: str, cold: ColdStart, people: People) -> list[str]:
    """The circles that no warning speaks of, and why they do no harm."""
    warned = cold.returns is not cold.before
    return [
        f"{'A circle: ' if circle.closed else ''}{chain(circle)}."
        f" It does no harm as long as {_other_way(keyring, circle, cold, people)}."
        for circle in cold.circles
        if circle.helps is Return.ITSELF or not warned
    ]


def _other_way(keyring: str, circle: Circle, cold: ColdStart, people: People) -> str:
    if circle.helps is Return.ITSELF:
        return f"{circle.hops[0].to} opens in another way"
    return f"{keyring} opens in another way: {ways(cold.ways, people)}"

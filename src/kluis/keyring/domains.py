"""Anchors that fail together: what the loss or the theft of a whole place does to a rule.

A place is a failure domain (a house, a power line, a cloud account), or an anchor that has none.
Of people that have none, every share is in a place of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kluis.keyring import policy
from kluis.keyring.policy import Policy
from kluis.keyring.trust import Names, Trust, opens_with
from kluis.keyring.words import People


@dataclass(frozen=True, slots=True)
class Domain:
    """A failure domain: the anchors of the rule that lie in it, sorted."""

    name: str
    anchors: Names
    loss_locks: bool
    """Without all of them, the rest is not enough."""
    theft_opens: bool
    """All of them together are enough."""


@dataclass(frozen=True, slots=True)
class Places:
    """A rule by places instead of anchors."""

    domains: tuple[Domain, ...]
    alone: Names
    """The anchors without a domain; each is a place of its own."""
    may_be_lost: int
    """How many places, whichever they are, may be lost at once."""
    to_steal: int
    """The fewest places that a thief has to empty."""


def places(rule: Policy, found: Trust, domain_of: Mapping[str, str], people: People) -> Places:
    """A rule by places. ``found`` is the rule explained, ``domain_of`` the domains of anchors."""
    to_lose = {name: shares - threshold + 1 for name, (threshold, shares) in people.items()}
    to_steal = {name: threshold for name, (threshold, _) in people.items()}
    everything = sorted(policy.names(rule))
    return Places(
        tuple(
            _domain(rule, name, tuple(a for a in everything if domain_of.get(a) == name))
            for name in sorted({domain_of[a] for a in everything if a in domain_of})
        ),
        tuple(a for a in everything if a not in domain_of),
        min(_count(names, domain_of, to_lose) for names in found.cuts) - 1,
        min(_count(names, domain_of, to_steal) for names in found.quorums),
    )


def _domain(rule: Policy, name: str, anchors: Names) -> Domain:
    rest = set(policy.names(rule)).difference(anchors)
    return Domain(name, anchors, not opens_with(rule, rest), opens_with(rule, set(anchors)))


def _count(names: Names, domain_of: Mapping[str, str], shares: Mapping[str, int]) -> int:
    """In how many places some anchors lie; of people, with so many shares."""
    domains = {domain_of[name] for name in names if name in domain_of}
    return len(domains) + sum(shares.get(name, 1) for name in names if name not in domain_of)

"""Who can open, what may be lost, what must not be stolen: the sets behind a policy.

A policy names each anchor once, so the minimal quorums of its parts never overlap, and joining
them gives minimal sets without a search. The sets whose loss locks for good are the quorums of
the dual policy, in which *k of n* becomes *n - k + 1 of n*.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations, product
from typing import Final

from kluis.errors import TooManySets
from kluis.keyring.policy import AnyOf, Name, Policy, threshold
from kluis.keyring.policy import names as anchors

MAX_SETS: Final = 10_000

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """A policy, explained. Every set is sorted, and so are the lists of sets."""

    quorums: tuple[Names, ...]
    cuts: tuple[Names, ...]

    @property
    def alone(self) -> Names:
        """Anchors that open alone: whoever steals one of them has everything."""
        return tuple(names[0] for names in self.quorums if len(names) == 1)

    @property
    def indispensable(self) -> Names:
        """Anchors whose loss alone locks for good."""
        return tuple(names[0] for names in self.cuts if len(names) == 1)

    @property
    def may_be_lost(self) -> int:
        """How many anchors, whichever they are, may be lost at once without locking for good."""
        return min(map(len, self.cuts)) - 1


def explain(policy: Policy) -> Trust:
    """The minimal quorums and cuts of a policy. Raises TooManySets above 10,000 of a kind."""
    return Trust(minimal_quorums(policy), minimal_quorums(dual(policy)))


def minimal_quorums(policy: Policy) -> tuple[Names, ...]:
    """The minimal sets of anchors that open together."""
    count = _count(policy)
    if count > MAX_SETS:
        raise TooManySets(
            f"the rule has {count} minimal sets",
            f"more than {MAX_SETS} are not listed",
            "name fewer anchors, or lower the thresholds",
        )
    return tuple(sorted(tuple(sorted(names)) for names in _sets(policy)))


def dual(policy: Policy) -> Policy:
    """The policy that is satisfied by just the sets whose loss makes this one impossible."""
    match policy:
        case Name():
            return policy
        case AnyOf(of):
            return threshold(len(of), [dual(member) for member in of])
        case _:
            count = len(policy.of) - policy.threshold + 1
            return threshold(count, [dual(member) for member in policy.of])


def opens_with(policy: Policy, available: AbstractSet[str]) -> bool:
    """Whether these anchors are enough."""
    match policy:
        case Name(name):
            return name in available
        case AnyOf(of):
            return any(opens_with(member, available) for member in of)
        case _:
            return sum(opens_with(member, available) for member in policy.of) >= policy.threshold


def remaining(policy: Policy, have: AbstractSet[str], lost: AbstractSet[str]) -> Policy | bool:
    """What is lacking when ``have`` answered and ``lost`` never will.

    A policy over the other anchors; True when nothing is lacking, False when it can't be had.
    """
    match policy:
        case Name(name):
            return True if name in have else policy if name not in lost else False
        case AnyOf(of):
            count = 1
        case _:
            count, of = policy.threshold, policy.of
    parts = [remaining(member, have, lost) for member in of]
    lacking = count - parts.count(True)
    possible = [part for part in parts if not isinstance(part, bool)]
    if lacking <= 0:
        return True
    return threshold(lacking, possible) if lacking <= len(possible) else False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a loss does: the sets that still open, or those of which one has to come back."""

    ways: tuple[Names, ...]
    lacking: tuple[Names, ...]

    @property
    def opens(self) -> bool:
        """Whether what is left is enough."""
        return bool(self.ways)


def simulate(policy: Policy, available: AbstractSet[str]) -> Outcome:
    """What opens with these anchors and no other; smallest sets first.

    Of more than 10,000 sets, one of the smallest is given.
    """
    have = available & frozenset(anchors(policy))
    left = remaining(policy, frozenset(), frozenset(anchors(policy)) - have)
    return Outcome(_listed(left), _listed(remaining(policy, have, frozenset())))


def _listed(policy: Policy | bool) -> tuple[Names, ...]:
    return () if isinstance(policy, bool) else shortlist(policy, MAX_SETS)


def shortlist(policy: Policy, limit: int) -> tuple[Names, ...]:
    """The minimal quorums, smallest first; of more than ``limit`` only one of the smallest."""
    if _count(policy) > limit:
        return (tuple(sorted(_smallest(policy))),)
    return tuple(sorted(minimal_quorums(policy), key=len))


def _smallest(policy: Policy) -> list[str]:
    match policy:
        case Name(name):
            return [name]
        case AnyOf(of):
            return min((_smallest(member) for member in of), key=len)
        case _:
            parts = sorted((_smallest(member) for member in policy.of), key=len)
            return [name for part in parts[: policy.threshold] for name in part]


def _sets(policy: Policy) -> list[frozenset[str]]:
    match policy:
        case Name(name):
            return [frozenset({name})]
        case AnyOf(of):
            return [names for member in of for names in _sets(member)]
        case _:
            parts = [_sets(member) for member in policy.of]
            return [
                frozenset().union(*chosen)
                for some in combinations(parts, policy.threshold)
                for chosen in product(*some)
            ]


def _count(policy: Policy) -> int:
    """How many sets there are, without making them: elementary symmetric polynomials."""
    match policy:
        case Name():
            return 1
        case AnyOf(of):
            return sum(_count(member) for member in of)
        case _:
            sums = [1] + [0] * policy.threshold
            for member in policy.of:
                ways = _count(member)
                for size in range(policy.threshold, 0, -1):
                    sums[size] += sums[size - 1] * ways
            return sums[-1]

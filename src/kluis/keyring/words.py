"""Anchors in words: as what opens, as what is lost, and joined to sentences.

People open by some of their shares, not by their name; whoever speaks of them says how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kluis.keyring import tree

People = Mapping[str, tuple[int, int]]
"""Threshold and number of shares, by the name of the people."""

SETS_SHOWN: Final = 8


def people_among(leaves: Iterable[tree.Leaf]) -> dict[str, tuple[int, int]]:
    """The people among some leaves."""
    return {
        leaf.name: (leaf.threshold, leaf.shares)
        for leaf in leaves
        if isinstance(leaf, tree.PeopleLeaf)
    }


def opening(name: str, people: People) -> str:
    """An anchor as that which opens."""
    if name not in people:
        return name
    threshold, shares = people[name]
    if shares == 1:
        return f"the one share of {name}"
    if threshold == shares:
        return f"{'both' if shares == 2 else f'all {shares}'} shares of {name}"
    return f"{threshold} of the {shares} shares of {name}"


def losing(name: str, people: People) -> str:
    """An anchor as that whose loss counts: of people, so many shares that too few are left."""
    if name not in people:
        return name
    threshold, shares = people[name]
    return opening(name, {name: (shares - threshold + 1, shares)})


def joined(parts: Sequence[str], word: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def together(names: Iterable[str], people: People) -> str:
    """A set that opens: ``cloud and 2 of the 3 shares of family``."""
    return joined([opening(name, people) for name in people_last(names, people)])


def people_last(names: Iterable[str], people: People) -> list[str]:
    """The same names; "2 of the 3 shares of family and cloud" could be misread."""
    return sorted(names, key=lambda name: (name in people, name))


def in_order(sets: Iterable[Sequence[str]], people: People) -> list[Sequence[str]]:
    """Sets by how many things or shares each takes, the fewest first."""
    return sorted(sets, key=lambda s: (sum(people.get(n, (1, 1))[0] for n in s), tuple(s)))


def ways(sets: Sequence[Sequence[str]], people: People) -> str:
    """Sets of which each opens; of many, the first few and how many more there are."""
    shown = [together(names, people) for names in in_order(sets, people)[:SETS_SHOWN]]
    more = len(sets) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def plural(count: int, word: str) -> str:
    """``1 share``, ``2 shares``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"

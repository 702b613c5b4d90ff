"""The quorum machine: outcomes of anchors in, state out. It asks nobody and waits for nothing.

Rules
- A leaf has at most one outcome that counts: an answer replaces a failure and an older answer.
- An answer is not believed. Answers only make candidates for the root secret; the tag of the
  document's body decides which candidate, if any, is the root secret.
- So a wrong answer never blocks a good quorum: when more answers came than are needed, every
  sufficient choice of them is a candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Final

from kluis.keyring import crypto, shamir, trust
from kluis.keyring.tree import AnyNode, Node, Path, ThresholdNode, leaves, show_path, to_policy
from kluis.secret import Secret

MAX_CANDIDATES: Final = 4096
"""Candidates tried at one node: far above what answers of honest anchors make (one), it bounds
the work that wrong answers can cause. The choices among 14 members, one answer each, are fewer."""

MAX_LISTED: Final = 100


@dataclass(frozen=True, slots=True)
class Satisfied:
    """The answers are enough. Whether they are right, the body's tag decides."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is lacking: each set is enough, in addition to the answers so far; smallest first.

    All minimal sets, or when there are more than ``MAX_LISTED``, one of the smallest.
    """

    sets: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Impossible:
    """The leaves that failed leave no quorum; ``failed`` are their names."""

    failed: tuple[str, ...]


State = Satisfied | Needs | Impossible


class Quorum:
    """What is known about the leaves of one tree."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._names = {path: leaf.name for path, leaf in leaves(node)}
        self._policy = to_policy(node)
        self._answers: dict[Path, Secret] = {}
        self._failed: set[Path] = set()
        self._tried: set[bytes] = set()  # SHA-256 of the candidates

    @property
    def answers(self) -> Mapping[Path, Secret]:
        """The answers so far."""
        return self._answers

    def answer(self, path: Path, secret: Secret) -> Iterator[Secret]:
        """Take an answer; the root secrets that are possible now and were not given before."""
        if path not in self._names:
            raise KeyError(show_path(path))
        self._failed.discard(path)
        self._answers[path] = secret
        return self._fresh()

    def _fresh(self) -> Iterator[Secret]:
        for value in _values(self._node, (), self._answers):
            digest = crypto.sha256(value)
            if digest not in self._tried:
                self._tried.add(digest)
                yield Secret(value)

    def fail(self, path: Path) -> None:
        """Take a failure: this leaf will not answer."""
        if path not in self._names:
            raise KeyError(show_path(path))
        if path not in self._answers:
            self._failed.add(path)

    def state(self) -> State:
        """Where it stands."""
        answered = {self._names[path] for path in self._answers}
        failed = {self._names[path] for path in self._failed}
        lacking = trust.remaining(self._policy, answered, failed)
        if lacking is True:
            return Satisfied()
        if lacking is False:
            return Impossible(tuple(sorted(failed)))
        return Needs(trust.shortlist(lacking, MAX_LISTED))

    def wrong(self, expected: Mapping[Path, Secret]) -> tuple[str, ...]:
        """The leaves whose answer is not the secret that the opened body holds for them."""
        return tuple(
            self._names[path]
            for path, secret in sorted(self._answers.items())
            if path in expected and expected[path] != secret
        )


def _values(node: Node, path: Path, answers: Mapping[Path, Secret]) -> list[bytes]:
    """The secrets that a node may have by these answers, each once."""
    match node:
        case AnyNode(of):
            found = [_values(child, (*path, i), answers) for i, child in enumerate(of)]
            return list(dict.fromkeys(value for values in found for value in values))
        case ThresholdNode(threshold, of):
            found = [_values(child, (*path, i), answers) for i, child in enumerate(of)]
            shares = {i + 1: values for i, values in enumerate(found) if values}
            return _combined(threshold, shares)
        case _:
            return [answers[path].reveal()] if path in answers else []


def _combined(threshold: int, shares: Mapping[int, list[bytes]]) -> list[bytes]:
    """What the shares of a threshold node may combine to: one value when they all agree."""
    if len(shares) < threshold:
        return []
    first = {x: values[0] for x, values in list(shares.items())[:threshold]}
    if _all_agree(first, shares):
        return [shamir.interpolate(first)]
    found: dict[bytes, None] = {}
    for count, choice in enumerate(_choices(threshold, shares)):
        if count == MAX_CANDIDATES:
            break
        found[shamir.interpolate(choice)] = None
    return list(found)


def _all_agree(first: Mapping[int, bytes], shares: Mapping[int, list[bytes]]) -> bool:
    return all(
        len(values) == 1 and shamir.interpolate(first, x) == values[0]
        for x, values in shares.items()
    )


def _choices(threshold: int, shares: Mapping[int, list[bytes]]) -> Iterator[dict[int, bytes]]:
    for some in combinations(shares, threshold):
        picks: Iterable[tuple[bytes, ...]] = product(*(shares[x] for x in some))
        for pick in picks:
            yield dict(zip(some, pick, strict=True))

"""A loss that is only imagined: which anchors are gone, and how many shares people have left."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kluis.errors import UsageError
from kluis.keyring import policy, trust
from kluis.keyring.policy import Policy
from kluis.keyring.strict import JSON
from kluis.keyring.trust import Outcome
from kluis.keyring.words import People, joined, opening, people_last
from kluis.service.explain.explaining import domains_of, people_of
from kluis.settings.root import Configuration

Counts = Mapping[str, int]
"""Shares of people, by their names; 1 and 0 for any other anchor that is there or is not."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, as it was written."""

    lose: Sequence[str] = ()
    lose_domain: Sequence[str] = ()
    only: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Simulated:
    """A keyring after a loss."""

    keyring: str
    rule: Policy
    people: People
    left: Counts
    only: bool
    """Whether what is left was named, not what is lost."""
    outcome: Outcome

    @property
    def after(self) -> str:
        """The loss in words."""
        if self.only:
            there = self._said(self.left)
            return f"with only {joined(there)}" if there else "with nothing"
        lost = self._said({name: self._whole(name) - count for name, count in self.left.items()})
        return f"without {joined(lost)}" if lost else "with everything in place"

    def _said(self, counts: Counts) -> list[str]:
        return [
            opening(name, {name: (count, self._whole(name))} if name in self.people else {})
            for name in people_last(counts, self.people)
            if (count := counts[name])
        ]

    def _whole(self, name: str) -> int:
        return self.people[name][1] if name in self.people else 1


def simulate(settings: Configuration, keyrings: Sequence[str], wish: Wish) -> list[Simulated]:
    """These keyrings after a loss. Raises UsageError for a name that is none of theirs."""
    rules = {name: policy.parse(settings.keyrings[name].opens) for name in keyrings}
    people = people_of(settings)
    whole = {
        name: people[name][1] if name in people else 1
        for rule in rules.values()
        for name in policy.names(rule)
    }
    left = _left(whole, people, domains_of(settings), wish)
    return [_simulated(name, rule, people, left, wish) for name, rule in rules.items()]


def _simulated(keyring: str, rule: Policy, people: People, left: Counts, wish: Wish) -> Simulated:
    here = {name: left[name] for name in sorted(policy.names(rule))}
    enough = {n for n, count in here.items() if count >= (people[n][0] if n in people else 1)}
    outcome = trust.simulate(rule, enough)
    return Simulated(keyring, rule, people, here, wish.only is not None, outcome)


def _left(
    whole: Counts, people: People, domain_of: Mapping[str, str], wish: Wish
) -> dict[str, int]:
    left = dict(whole)
    if wish.only is not None:
        left = dict.fromkeys(whole, 0) | dict(_counts(wish.only, whole, people))
    for name, count in _counts(wish.lose, whole, people):
        left[name] = max(0, left[name] - count)
    domains = {domain_of[name] for name in whole if name in domain_of}
    for domain in _listed(wish.lose_domain):
        _refuse_unknown("domain", domain, domains)
        left |= {name: 0 for name in whole if domain_of.get(name) == domain}
    return left


def _counts(texts: Iterable[str], whole: Counts, people: People) -> Iterator[tuple[str, int]]:
    """Names and how much of each: ``nas``, ``family``, ``family:2``."""
    for text in _listed(texts):
        name, colon, number = text.partition(":")
        _refuse_unknown("anchor", name, whole)
        if not colon:
            yield name, whole[name]
        elif name in people and re.fullmatch("[0-9]{1,2}", number) and int(number) <= whole[name]:
            yield name, int(number)
        else:
            raise UsageError(
                f"{text!r} is no number of shares",
                f"{name} has {whole[name]} shares" if name in people else f"{name} has no shares",
                f"write {name}" + (f", or {name}:1 for one of them" if name in people else ""),
            )


def _listed(texts: Iterable[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _refuse_unknown(what: str, name: str, known: Collection[str]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, 1)
    raise UsageError(
        f"there is no {what} {name} in the rule",
        f"its {what}s are: {', '.join(sorted(known)) or 'none'}",
        f"did you mean {close[0]}?" if close else "correct the name",
    )


def as_json(simulated: Simulated) -> dict[str, JSON]:
    """What ``kluis simulate --output json`` prints of a keyring: a contract, docs/RUNNING.md."""
    people, outcome = simulated.people, simulated.outcome
    return {
        "state": "open" if outcome.opens else "locked",
        "opens": policy.show(simulated.rule),
        "lost": [name for name, count in simulated.left.items() if not count],
        "people": {
            name: {"threshold": people[name][0], "shares": people[name][1], "left": count}
            for name, count in simulated.left.items()
            if name in people
        },
        "ways": [[*names] for names in outcome.ways],
        "needs": [[*names] for names in outcome.lacking],
    }

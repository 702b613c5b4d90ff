"""Who can open, what may be lost: against brute force over all subsets."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import TooManySets
from kluis.keyring import policy, trust
from kluis.keyring.policy import Policy
from tests.keyring.strategies import policies


def subsets(names: list[str]) -> list[frozenset[str]]:
    every = chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))
    return [frozenset(names) for names in every]


def minimal(sets: list[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted(tuple(sorted(s)) for s in sets if not any(other < s for other in sets)))


@given(policies())
def test_quorums_and_cuts_are_those_of_brute_force(rule: Policy) -> None:
    names = list(policy.names(rule))
    every = subsets(names)
    opening = [s for s in every if trust.opens_with(rule, s)]
    locking = [s for s in every if not trust.opens_with(rule, set(names) - s)]
    explained = trust.explain(rule)
    assert explained.quorums == minimal(opening)
    assert explained.cuts == minimal(locking)
    assert explained.alone == tuple(sorted(n for n in names if trust.opens_with(rule, {n})))
    assert explained.indispensable == tuple(
        sorted(n for n in names if not trust.opens_with(rule, set(names) - {n}))
    )
    assert explained.may_be_lost == min(map(len, locking)) - 1


@given(policies())
def test_the_dual_of_the_dual_is_the_policy(rule: Policy) -> None:
    assert trust.dual(trust.dual(rule)) == rule


@given(policies(), st.data())
def test_what_remains_is_the_minimal_sets_that_are_lacking(
    rule: Policy, data: st.DataObject
) -> None:
    names = list(policy.names(rule))
    have = frozenset(data.draw(st.sets(st.sampled_from(names))))
    lost = frozenset(data.draw(st.sets(st.sampled_from(names)))) - have
    open_names = sorted(set(names) - have - lost)
    enough = [s for s in subsets(open_names) if trust.opens_with(rule, s | have)]
    found = trust.remaining(rule, have, lost)
    if found is True:
        assert trust.opens_with(rule, have)
    elif found is False:
        assert enough == []
    else:
        assert trust.minimal_quorums(found) == minimal(enough)
        assert frozenset() not in enough
        shortest = trust.shortlist(found, 0)[0]
        assert len(shortest) == min(map(len, enough))
        assert frozenset(shortest) in enough
        listed = trust.shortlist(found, 10_000)
        assert sorted(listed) == list(minimal(enough))
        assert [len(s) for s in listed] == sorted(map(len, minimal(enough)))


@given(policies(), st.data())
def test_a_simulated_loss_opens_just_when_the_rule_does_and_says_by_which_ways(
    rule: Policy, data: st.DataObject
) -> None:
    names = list(policy.names(rule))
    there = frozenset(data.draw(st.sets(st.sampled_from(names)))) | {"somebody-else"}
    outcome = trust.simulate(rule, there)
    assert outcome.opens == trust.opens_with(rule, there)
    opening = [s for s in subsets(sorted(there)) if trust.opens_with(rule, s)]
    assert tuple(sorted(outcome.ways)) == minimal(opening)
    lost = sorted(set(names) - there)
    healing = [s for s in subsets(lost) if trust.opens_with(rule, s | there)]
    assert tuple(sorted(outcome.lacking)) == (() if outcome.opens else minimal(healing))
    assert [len(s) for s in outcome.ways] == sorted(map(len, outcome.ways))


@pytest.mark.parametrize(
    ("expression", "quorums", "cuts"),
    [
        ("a", "a", "a"),
        ("a or b", "a|b", "ab"),
        ("a and b", "ab", "a|b"),
        ("2 of (a, b, c)", "ab|ac|bc", "ab|ac|bc"),
        ("a or 2 of (b, c, d)", "a|bc|bd|cd", "abc|abd|acd"),
        ("a and (b or c)", "ab|ac", "a|bc"),
        ("a or b and c", "a|bc", "ab|ac"),
    ],
)
def test_a_rule_explained(expression: str, quorums: str, cuts: str) -> None:
    explained = trust.explain(policy.parse(expression))
    assert "|".join("".join(names) for names in explained.quorums) == quorums
    assert "|".join("".join(names) for names in explained.cuts) == cuts


def test_a_rule_of_more_than_ten_thousand_sets_is_refused_at_once() -> None:
    names = ", ".join(f"a{i}" for i in range(32))
    with pytest.raises(TooManySets):
        trust.explain(policy.parse(f"16 of ({names})"))


def test_of_more_than_ten_thousand_ways_a_simulation_gives_one_of_the_smallest() -> None:
    names = [f"a{i}" for i in range(32)]
    rule = policy.parse(f"16 of ({', '.join(names)})")
    (way,) = trust.simulate(rule, frozenset(names)).ways
    assert len(way) == 16
    (lacking,) = trust.simulate(rule, frozenset()).lacking
    assert len(lacking) == 16

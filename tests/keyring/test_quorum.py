"""The quorum machine: answers in, candidates and state out."""

from __future__ import annotations

import random
import time
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.keyring import dealing, policy, tree, trust
from kluis.keyring.policy import Policy
from kluis.keyring.quorum import MAX_CANDIDATES, Impossible, Needs, Quorum, Satisfied
from kluis.secret import Secret
from tests.keyring.strategies import policies, tree_of

ROOT = Secret(bytes(range(32)))


class Played:
    """A tree with its dealt secrets, and a machine for them."""

    def __init__(self, rule: Policy | str) -> None:
        self.rule = policy.parse(rule) if isinstance(rule, str) else rule
        self.node = tree_of(self.rule)
        self.paths = {leaf.name: path for path, leaf in tree.leaves(self.node)}
        self.secrets = dealing.deal(self.node, ROOT)
        self.machine = Quorum(self.node)

    def answer(self, name: str, secret: Secret | None = None) -> list[Secret]:
        path = self.paths[name]
        return list(self.machine.answer(path, secret or self.secrets[path]))

    def fail(self, name: str) -> None:
        self.machine.fail(self.paths[name])


# Every subset of the anchors, in the order of a binary number: which of them open?
TRUTH = [
    ("a", "", "a"),
    ("a or b", "", "a b ab"),
    ("a and b", "a b", "ab"),
    ("2 of (a, b, c)", "a b c", "ab ac bc abc"),
    ("3 of (a, b, c)", "a b c ab ac bc", "abc"),
    ("a or b and c", "b c", "a ab ac bc abc"),
    ("(a or b) and c", "a b c ab", "ac bc abc"),
    ("a or 2 of (b, c, d)", "b c d", "a ab ac ad bc bd cd abc abd acd bcd abcd"),
    ("2 of (a, b and c, d)", "a b c d ab ac bc bd cd", "ad abc abd acd bcd abcd"),
    ("2 of (a, 2 of (b, c, d))", "a b c d ab ac ad bc bd cd bcd", "abc abd acd abcd"),
    ("2 of (a or b, c, d)", "a b c d ab", "ac ad bc bd cd abc abd acd bcd abcd"),
]


@pytest.mark.parametrize(("expression", "locked", "opened"), TRUTH)
def test_the_root_secret_is_had_by_just_the_sets_that_the_rule_says(
    expression: str, locked: str, opened: str
) -> None:
    names = sorted(policy.names(policy.parse(expression)))
    every = chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1))
    assert sorted(locked.split() + opened.split()) == sorted("".join(s) for s in every)
    for who in locked.split() + opened.split():
        played = Played(expression)
        candidates = [c for name in who for c in played.answer(name)]
        assert candidates == ([ROOT] if who in opened.split() else []), who
        assert isinstance(played.machine.state(), Satisfied) == (who in opened.split()), who


@given(policies(), st.data())
def test_answers_open_when_and_only_when_the_rule_is_satisfied(
    rule: Policy, data: st.DataObject
) -> None:
    played = Played(rule)
    names = data.draw(st.permutations(sorted(played.paths)))
    answered: set[str] = set()
    found: list[Secret] = []
    for name in names:
        found += played.answer(name)
        answered.add(name)
        assert found == ([ROOT] if trust.opens_with(rule, answered) else [])


@given(policies(), st.data())
def test_the_state_is_what_brute_force_says(rule: Policy, data: st.DataObject) -> None:
    played = Played(rule)
    names = sorted(played.paths)
    answered = data.draw(st.sets(st.sampled_from(names)))
    failed = data.draw(st.sets(st.sampled_from(names)))
    for name in sorted(failed):
        played.fail(name)
    for name in sorted(answered):
        played.answer(name)
    failed -= answered
    match played.machine.state():
        case Satisfied():
            assert trust.opens_with(rule, answered)
        case Impossible(names_of_failed):
            assert not trust.opens_with(rule, set(names) - failed)
            assert names_of_failed == tuple(sorted(failed))
        case Needs(sets):
            for lacking in sets:
                assert trust.opens_with(rule, answered | set(lacking))
                assert failed.isdisjoint(lacking)
                for one in lacking:
                    assert not trust.opens_with(rule, answered | set(lacking) - {one})


def test_what_is_lacking_is_listed_smallest_first() -> None:
    played = Played("a and b or c or 2 of (d, e, f)")
    assert played.machine.state() == Needs((("c",), ("a", "b"), ("d", "e"), ("d", "f"), ("e", "f")))
    played.fail("c")
    played.answer("d")
    assert played.machine.state() == Needs((("e",), ("f",), ("a", "b")))


def test_the_state_of_a_huge_rule_is_had_at_once() -> None:
    names = [f"a{i:02}" for i in range(32)]
    played = Played(f"16 of ({', '.join(names)})")
    started = time.thread_time()
    state = played.machine.state()
    assert state == Needs((tuple(names[:16]),))
    for name in names[:8]:
        played.fail(name)
    assert played.machine.state() == Needs((tuple(names[8:24]),))
    assert time.thread_time() - started < 10.0


def test_an_answer_counts_also_when_nobody_looks_at_its_candidates() -> None:
    played = Played("a and b")
    played.machine.answer(played.paths["a"], played.secrets[played.paths["a"]])
    assert list(played.machine.answers) == [played.paths["a"]]
    assert played.answer("b") == [ROOT]


def test_an_answer_replaces_a_failure_and_a_later_failure_does_not_count() -> None:
    played = Played("a")
    played.fail("a")
    assert played.machine.state() == Impossible(("a",))
    assert played.answer("a") == [ROOT]
    played.fail("a")
    assert played.machine.state() == Satisfied()


def test_a_right_answer_replaces_a_wrong_one() -> None:
    played = Played("a and b")
    played.answer("a", Secret.random())
    assert played.answer("b") != [ROOT]
    assert played.answer("a") == [ROOT]


def test_a_candidate_is_given_once() -> None:
    played = Played("a or b")
    assert played.answer("a") == [ROOT]
    assert played.answer("b") == []
    assert played.answer("a") == []


@pytest.mark.parametrize("path", [(), (0, 0), (7,)])
def test_a_path_that_is_no_leaf_is_a_fault_of_the_caller(path: tree.Path) -> None:
    machine = Quorum(tree_of(policy.parse("a or b")))
    with pytest.raises(KeyError):
        machine.answer(path, ROOT)
    with pytest.raises(KeyError):
        machine.fail(path)


@given(policies(max_names=6), st.data())
def test_wrong_answers_never_block_a_good_quorum(rule: Policy, data: st.DataObject) -> None:
    played = Played(rule)
    names = sorted(played.paths)
    liars = data.draw(st.sets(st.sampled_from(names)))
    order = data.draw(st.permutations(names))
    found = [
        candidate
        for name in order
        for candidate in played.answer(name, Secret.random() if name in liars else None)
    ]
    assert (ROOT in found) == trust.opens_with(rule, set(names) - liars)
    assert set(played.machine.wrong(played.secrets)) == liars


def test_a_liar_in_a_group_of_fourteen_is_outvoted_whatever_the_order() -> None:
    names = [f"a{i:02}" for i in range(14)]
    played = Played(f"7 of ({', '.join(names)})")
    liars = names[:7]
    found = [c for name in liars for c in played.answer(name, Secret.random())]
    found += [c for name in names[7:] for c in played.answer(name)]
    assert ROOT in found


def test_the_work_that_liars_can_cause_is_bounded() -> None:
    names = [f"a{i:02}" for i in range(16)]
    played = Played(f"8 of ({', '.join(names)})")
    wrong = random.Random(1)
    for name in names[:13]:
        played.answer(name, Secret(wrong.randbytes(32)))
    assert len(played.answer(names[13], Secret(wrong.randbytes(32)))) < MAX_CANDIDATES
    assert len(played.answer(names[14], Secret(wrong.randbytes(32)))) <= MAX_CANDIDATES


def test_a_leaf_that_the_body_does_not_know_is_not_called_wrong() -> None:
    played = Played("a or b")
    played.answer("a", Secret.random())
    played.answer("b")
    assert played.machine.wrong({played.paths["b"]: ROOT}) == ()

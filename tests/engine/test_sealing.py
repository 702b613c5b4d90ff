"""Sealing proves itself: what would not open again is not written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from kluis.anchors.base import Anchor
from kluis.engine import change, sealing
from kluis.engine.sealing import issue_paper, seal_document
from kluis.errors import ChangeRefused, Damaged, Inconsistent, Locked, Misconfigured
from kluis.keyring import paper, policy, tree, trust
from kluis.keyring.document import Document, from_bytes, to_bytes
from kluis.keyring.tree import PeopleLeaf
from kluis.secret import Secret
from tests.engine.keyrings import ANCHORS_S, NOW, PATIENCE_S, anchors_of, make, token_of, wanted
from tests.engine.test_opening import opens, run
from tests.support.failing_anchor import (
    Answers,
    Behaviour,
    Down,
    FailingAnchor,
    Flapping,
    Hanging,
    IsDamaged,
    IsMissing,
    Raises,
    Refuses,
    Works,
    WrongAnswer,
)

CANT: Mapping[str, Behaviour] = {
    "is down": Down(),
    "refuses": Refuses(),
    "is missing": IsMissing(),
    "hangs": Hanging(),
    "raises what it should not": Raises(ValueError()),
    "opens with another secret": WrongAnswer(),
    "seals and then is down": Flapping(Works(), Down()),
    "seals and then finds it damaged": Flapping(Works(), IsDamaged()),
    "seals nothing": Answers({}),
    "seals into more than a document takes": Answers({"box": "A" * 20_000}),
}


def anchor(name: str, now: Behaviour) -> FailingAnchor:
    """An anchor whose script starts anew; only one that hangs has a deadline that passes."""
    again = Flapping(*now._script) if isinstance(now, Flapping) else now
    return FailingAnchor(name, again, 0.05 if isinstance(now, Hanging) else ANCHORS_S)


@pytest.mark.parametrize("behaviour", CANT.values(), ids=list(CANT))
def test_an_anchor_that_can_not_open_what_it_sealed_is_no_lone_anchor(behaviour: Behaviour) -> None:
    with pytest.raises(ChangeRefused, match=r"^a: ") as caught:
        run(make("a", anchors={"a": anchor("a", behaviour)}))
    assert "nothing was written" in caught.value.means
    assert caught.value.next_step


@pytest.mark.parametrize("behaviour", CANT.values(), ids=list(CANT))
def test_an_anchor_that_can_be_spared_is_left_unsealed_and_named(behaviour: Behaviour) -> None:
    async def spare() -> None:
        site = await make("a or b", anchors={"a": anchor("a", behaviour)})
        assert set(site.changed.away) == {"a"}
        leaves = {leaf.name: leaf for _, leaf in tree.leaves(site.document.tree)}
        assert leaves["a"] == tree.AnchorLeaf("a", "failing", None)
        site.now(a=Works())
        assert await opens(site)

    run(spare())


AWAY = [
    # rule                       who is away   sealed
    ("a or b", "a", True),
    ("a or b", "a b", False),
    ("a and b", "a", False),
    ("2 of (a, b, c)", "a", True),
    ("2 of (a, b, c)", "a b", False),
    ("a or 2 of (b, c, d)", "a d", True),
    ("a or 2 of (b, c, d)", "b c d", True),
    ("a or 2 of (b, c, d)", "a c d", False),
    ("a or family", "a", True),
    ("a and family", "a", False),
]


@pytest.mark.parametrize(("rule", "away", "sealed"), AWAY)
def test_anchors_may_be_away_while_the_rule_can_be_met_without_them(
    rule: str, away: str, sealed: bool
) -> None:
    people = {"family": (1, 1)} if "family" in rule else None
    anchors = anchors_of(rule, people) | {name: anchor(name, Down()) for name in away.split()}
    names = set(policy.names(policy.parse(rule)))
    assert trust.opens_with(policy.parse(rule), names - set(away.split())) is sealed
    if sealed:
        assert set(run(make(rule, people, anchors=anchors)).changed.away) == set(away.split())
        return
    with pytest.raises(ChangeRefused):
        run(make(rule, people, anchors=anchors))


def test_the_first_by_name_is_blamed_when_several_are_away() -> None:
    anchors: dict[str, Anchor] = {"b": anchor("b", Down()), "a": anchor("a", Refuses())}
    with pytest.raises(ChangeRefused, match=r"^a: permission denied"):
        run(make("b and a", anchors=anchors))


def test_an_anchor_that_is_not_declared_can_not_be_sealed() -> None:
    async def undeclared() -> change.Changed:
        return await change.make(wanted("a or b"), {"a": FailingAnchor("a")}, token_of, NOW)

    assert isinstance(run(undeclared()).away["b"], Misconfigured)


def test_all_anchors_seal_at_the_same_time() -> None:
    async def meet() -> None:
        barrier = asyncio.Barrier(3)

        class Meets(FailingAnchor):
            async def _behave(self, call: str) -> Behaviour:
                await barrier.wait()
                return await super()._behave(call)

        async with asyncio.timeout(PATIENCE_S):
            site = await make("a and b and c", anchors={name: Meets(name) for name in "abc"})
        assert not site.changed.away

    run(meet())


def test_a_wrong_anchor_is_named_as_one() -> None:
    site = run(make("a or b", anchors={"a": anchor("a", WrongAnswer())}))
    assert isinstance(site.changed.away["a"], Damaged)
    assert "wrong secret" in site.changed.away["a"].seen


def test_paper_that_does_not_give_the_secret_back_is_not_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = paper.issue("family", Secret.random(), 2, 3)
    monkeypatch.setattr(paper, "issue", lambda *args: other)
    with pytest.raises(Inconsistent):
        issue_paper(PeopleLeaf("family", 2, 3, 0), Secret.random())


def test_a_document_that_does_not_read_back_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = run(make("a")).opened

    def misread(data: bytes) -> Document:
        return replace(from_bytes(data), epoch=9)

    monkeypatch.setattr(sealing, "from_bytes", misread)
    with pytest.raises(Inconsistent):
        seal_document(opened.document, opened.root, opened.contents)


def test_a_wiped_secret_seals_nothing() -> None:
    opened = run(make("a")).opened
    opened.wipe()
    with pytest.raises(Locked, match="locked meanwhile"):
        seal_document(opened.document, opened.root, opened.contents)


def test_what_was_sealed_is_what_the_bytes_say() -> None:
    site = run(make("a or family", {"family": (2, 3)}))
    assert from_bytes(to_bytes(site.document)) == site.document


def test_two_people_of_one_rule_never_get_paper_of_the_same_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = iter([7, 7, 7, 8])
    real = sealing.issue_paper

    def numbered(leaf: tree.PeopleLeaf, secret: Secret) -> paper.Issued:
        issued = real(leaf, secret)
        return replace(issued, leaf=replace(issued.leaf, identifier=next(numbers)))

    monkeypatch.setattr(sealing, "issue_paper", numbered)
    site = asyncio.run(make("p and q", {"p": (2, 3), "q": (2, 3)}))
    found = [leaf.identifier for _, leaf in tree.leaves(site.document.tree)]  # type: ignore[union-attr]
    assert found == [7, 8]

"""Opening: the truth table of thresholds, and nobody who holds it up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from itertools import chain, combinations
from typing import TypeVar

import pytest

from kluis.anchors.passphrase import PassphraseAnchor
from kluis.engine.opening import Opened, Opening
from kluis.errors import (
    Damaged,
    ForeignShare,
    Misconfigured,
    NotSealed,
    Refused,
    RepeatedShare,
    Unreachable,
    UsageError,
    WrongShares,
)
from kluis.keyring import crypto, policy, tree, trust
from kluis.keyring.crypto import Argon2Cost
from kluis.keyring.document import Body, Document, associated_data
from kluis.keyring.quorum import Impossible, Needs
from tests.engine.keyrings import PATIENCE_S, Site, forged_value, make, until
from tests.support.failing_anchor import (
    Down,
    FailingAnchor,
    Flapping,
    Hanging,
    HangingThread,
    IgnoresCancellation,
    Raises,
    Refuses,
    Slow,
    Works,
    WrongAnswer,
)

T = TypeVar("T")
PASSPHRASE = "correct horse battery staple"
CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)


def run(call: Coroutine[None, None, T]) -> T:
    return asyncio.run(call)


async def opens(site: Site) -> bool:
    """Whether it opens now, and if so, to what was made."""
    opened = await Opening(site.document).ask(site.anchors)
    assert opened is None or opened.contents == site.opened.contents
    assert opened is None or opened.root == site.opened.root
    return opened is not None


TABLE = [
    # rule                                     who answers     opens
    ("a", "a", True),
    ("a", "", False),
    ("a or b", "a", True),
    ("a or b", "b", True),
    ("a or b", "a b", True),
    ("a or b", "", False),
    ("a and b", "a b", True),
    ("a and b", "a", False),
    ("a and b", "b", False),
    ("2 of (a, b, c)", "a b", True),
    ("2 of (a, b, c)", "b c", True),
    ("2 of (a, b, c)", "a c", True),
    ("2 of (a, b, c)", "a b c", True),
    ("2 of (a, b, c)", "b", False),
    ("2 of (a, b, c)", "", False),
    ("a or 2 of (b, c, d)", "a", True),
    ("a or 2 of (b, c, d)", "c d", True),
    ("a or 2 of (b, c, d)", "c", False),
    ("(a or b) and (c or d)", "a d", True),
    ("(a or b) and (c or d)", "a b", False),
    ("2 of (a, 2 of (b, c, d), e)", "b d e", True),
    ("2 of (a, 2 of (b, c, d), e)", "b c d", False),
]


@pytest.mark.parametrize(("rule", "answering", "expected"), TABLE)
def test_it_opens_when_enough_answer(rule: str, answering: str, expected: bool) -> None:
    async def ask() -> None:
        site = await make(rule)
        site.only(answering.split())
        assert await opens(site) is expected

    run(ask())


RULES = [
    "a or b or c",
    "a and b and c",
    "3 of (a, b, c, d)",
    "a or 2 of (b, c, d) or (e and f)",
    "2 of (a and b, c or d, 2 of (e, f, g))",
]


@pytest.mark.parametrize("rule", RULES)
def test_every_set_of_anchors_opens_just_what_the_rule_says(rule: str) -> None:
    async def ask_all() -> None:
        site = await make(rule)
        said, names = policy.parse(rule), sorted(site.anchors)
        for answering in chain.from_iterable(combinations(names, n) for n in range(len(names) + 1)):
            site.only(answering)
            assert await opens(site) is trust.opens_with(said, set(answering)), answering

    run(ask_all())


# -- nobody holds it up ----------------------------------------------------------------------


@pytest.mark.parametrize("hanging", [Hanging(), Slow(90.0), HangingThread(), IgnoresCancellation()])
@pytest.mark.parametrize("rule", ["a or h", "2 of (a, h, b)", "(a and b) or h"])
def test_an_anchor_that_hangs_holds_up_nobody(
    rule: str, hanging: Hanging | Slow | HangingThread | IgnoresCancellation
) -> None:
    async def ask() -> None:
        site = await make(rule)
        site.now(h=hanging)
        async with asyncio.timeout(PATIENCE_S):
            assert await opens(site)
        await asyncio.sleep(0)  # the cancelled call takes notice
        await asyncio.sleep(0)
        assert site.anchor("h").calls["open"] == 2  # when it was sealed, and now
        if isinstance(hanging, Hanging | Slow):
            assert site.anchor("h").cancelled == 1
        if isinstance(hanging, HangingThread | IgnoresCancellation):
            hanging.end.set()

    run(ask())


def test_no_task_is_left_when_it_is_open() -> None:
    async def ask() -> None:
        site = await make("a or h or i")
        site.now(h=Hanging(), i=Hanging())
        assert await opens(site)
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run(ask())


def test_one_that_hangs_does_not_keep_the_others_from_being_asked_again() -> None:
    async def ask() -> None:
        site = await make("a or h")
        site.now(a=Flapping(Down(), Works()), h=Hanging())
        opening = Opening(site.document)
        opening.start(site.anchors)
        await until(lambda: "a" in opening.failures)
        assert isinstance(opening.failures["a"], Unreachable)
        assert await opening.ask(site.anchors)
        assert "a" not in opening.failures
        assert site.anchor("h").calls["open"] == 2  # not asked again meanwhile

    run(ask())


def test_an_anchor_of_a_new_configuration_is_asked_in_place_of_the_old_that_hangs() -> None:
    async def ask() -> None:
        site = await make("a")
        site.now(a=Hanging())
        opening = Opening(site.document)
        opening.start(site.anchors)
        await asyncio.sleep(0)
        old = site.anchor("a")
        new = FailingAnchor("a")
        new._key = old._key
        assert await opening.ask({"a": new})
        await until(lambda: old.cancelled > 0)

    run(ask())


def test_two_who_ask_at_once_ask_each_anchor_once() -> None:
    async def ask() -> None:
        site = await make("a and b")
        site.now(a=Slow(0.02))
        opening = Opening(site.document)
        first, second = await asyncio.gather(opening.ask(site.anchors), opening.ask(site.anchors))
        assert first is second is opening.opened is not None
        assert site.anchor("a").calls["open"] == 2
        assert await opening.ask(site.anchors) is first  # and nobody is asked any more
        assert site.anchor("a").calls["open"] == 2

    run(ask())


def test_an_answer_that_came_while_the_asker_was_cancelled_is_not_lost() -> None:
    async def ask() -> None:
        site = await make("a")
        opening = Opening(site.document)
        asking = asyncio.create_task(opening.ask(site.anchors))
        await until(lambda: opening.opened is not None)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await opening.ask(site.anchors)

    run(ask())


def test_what_answers_after_it_was_cancelled_counts_no_more() -> None:
    async def ask() -> None:
        hanging = IgnoresCancellation()
        site = await make("a")
        site.now(a=hanging)
        found: list[Opened] = []
        opening = Opening(site.document, found.append)
        asking = asyncio.create_task(opening.ask(site.anchors))
        site.anchor("a").asked.clear()
        await site.anchor("a").asked.wait()
        opening.cancel()
        assert await asking is None
        hanging.end.set()
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert (found, opening.opened, opening.answered) == ([], None, set())

    run(ask())


# -- wrong answers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", ["2 of (w, a, b)", "2 of (a, w, b)", "w or (a and b)", "w or 2 of (a, b, c)"]
)
def test_a_wrong_answer_is_named_and_blocks_nobody(rule: str) -> None:
    async def ask() -> None:
        site = await make(rule)
        site.now(w=WrongAnswer(), a=Slow(0.01), b=Slow(0.01))
        opening = Opening(site.document)
        assert await opening.ask(site.anchors)
        assert isinstance(opening.failures["w"], Damaged)
        assert "wrong secret" in opening.failures["w"].seen
        assert set(opening.failures) == {"w"}

    run(ask())


def test_when_only_wrong_answers_are_enough_it_stays_locked_and_says_so() -> None:
    async def ask() -> None:
        site = await make("2 of (a, b, c)")
        site.now(a=WrongAnswer(), b=Works(), c=Down())
        opening = Opening(site.document)
        assert await opening.ask(site.anchors) is None
        assert opening.contradicted
        site.now(c=Works())
        assert await opening.ask(site.anchors)
        assert opening.opened
        assert set(opening.failures) == {"a"}

    run(ask())


def test_a_wrong_anchor_that_is_put_right_is_no_longer_named() -> None:
    async def ask() -> None:
        site = await make("a and b")
        site.now(a=WrongAnswer(), b=Down())
        opening = Opening(site.document)
        assert await opening.ask(site.anchors) is None
        assert not opening.contradicted
        site.now(a=Works(), b=Works())
        assert await opening.ask(site.anchors)
        assert opening.failures == {}

    run(ask())


def test_a_rule_of_more_sets_than_can_be_listed_opens_and_says_what_it_lacks() -> None:
    async def ask() -> None:
        names = [f"a{n}" for n in range(20)]
        site = await make(f"8 of ({', '.join(names)})")
        opening = Opening(site.document)
        assert isinstance(opening.state(), Needs)
        site.only(names[:7])
        assert await opening.ask(site.anchors) is None
        assert not opening.contradicted
        site.only(names[7:8])
        assert await opening.ask(site.anchors)

    run(ask())


def unreadable(site: Site) -> Document:
    """What somebody who knows the root secret, and errs, could write."""
    salt, nonce = crypto.random_bytes(32), crypto.new_nonce()
    draft = replace(site.document, body=Body(salt, nonce, b""))
    key = crypto.Aead(crypto.hkdf(site.opened.root.reveal(), salt, "kluis keyring/1 body"))
    sealed = key.seal(b"{}", associated_data(draft), nonce)
    return replace(draft, body=Body(salt, nonce, sealed[crypto.NONCE_BYTES :]))


def test_a_body_that_verifies_and_says_nonsense_ends_no_task() -> None:
    async def ask() -> None:
        site = await make("a or b")
        opening = Opening(unreadable(site))
        assert await opening.ask(site.anchors) is None
        assert opening.contradicted
        assert set(opening.answered) == {"a", "b"}

    run(ask())


# -- what anchors say ------------------------------------------------------------------------


def test_every_failure_is_kept_by_the_name_of_its_anchor() -> None:
    async def ask() -> None:
        site = await make("5 of (down, refuses, odd, unsealed, undeclared, otherkind)")
        site.now(down=Down(), refuses=Refuses(), odd=Raises(ValueError()))
        paths = {leaf.name: path for path, leaf in tree.leaves(site.document.tree)}
        node = tree.replace_leaf(
            site.document.tree, paths["unsealed"], tree.AnchorLeaf("unsealed", "failing")
        )
        node = tree.replace_leaf(
            node, paths["otherkind"], tree.AnchorLeaf("otherkind", "tang", {"box": ""})
        )
        del site.anchors["undeclared"]
        opening = Opening(replace(site.document, tree=node))
        assert isinstance(opening.state(), Needs)
        assert await opening.ask(site.anchors) is None
        assert {name: type(error) for name, error in opening.failures.items()} == {
            "down": Unreachable,
            "refuses": Refused,
            "odd": Misconfigured,
            "unsealed": NotSealed,
            "undeclared": Misconfigured,
            "otherkind": Misconfigured,
        }
        assert isinstance(opening.state(), Impossible)

    run(ask())


# -- people ----------------------------------------------------------------------------------


def test_people_come_one_after_another() -> None:
    async def enter() -> None:
        site = await make("a or family", {"family": (3, 5)})
        opening = Opening(site.document)
        for line in site.paper[1:3]:
            assert opening.enter_share(line) == ("family", None)
        name, opened = opening.enter_share(site.paper[4])
        assert name == "family"
        assert opened is not None
        assert opened.root == site.opened.root

    run(enter())


def test_people_and_an_anchor_in_either_order() -> None:
    async def enter() -> None:
        site = await make("a and family", {"family": (2, 3)})
        first = Opening(site.document)
        assert await first.ask(site.anchors) is None
        first.enter_share(site.paper[0])
        assert first.enter_share(site.paper[1])[1]
        second = Opening(site.document)
        second.enter_share(site.paper[0])
        assert second.enter_share(site.paper[1])[1] is None
        assert await second.ask(site.anchors)

    run(enter())


def test_two_sets_of_people() -> None:
    async def enter() -> None:
        site = await make("family and office", {"family": (1, 1), "office": (2, 2)})
        opening = Opening(site.document)
        office, family = site.changed.paper["office"], site.changed.paper["family"]
        assert opening.enter_share(office[0]) == ("office", None)
        assert opening.enter_share(family[0]) == ("family", None)
        name, opened = opening.enter_share(office[1])
        assert (name, opened is not None) == ("office", True)

    run(enter())


def test_a_repeated_share_counts_once_and_a_foreign_one_not_at_all() -> None:
    async def enter() -> None:
        site = await make("family", {"family": (2, 3)})
        other = await make("family", {"family": (2, 3)})
        while _identifier(other) == _identifier(site):
            other = await make("family", {"family": (2, 3)})
        opening = Opening(site.document)
        opening.enter_share(site.paper[0])
        with pytest.raises(RepeatedShare):
            opening.enter_share(site.paper[0])
        with pytest.raises(ForeignShare):
            opening.enter_share(other.paper[1])
        assert opening.enter_share(site.paper[2])[1]

    run(enter())


def _identifier(site: Site) -> int:
    assert isinstance(site.document.tree, tree.PeopleLeaf)
    return site.document.tree.identifier


def test_a_forged_share_is_noticed_and_a_good_third_one_still_opens() -> None:
    async def enter() -> None:
        site = await make("family", {"family": (2, 3)})
        opening = Opening(site.document)
        opening.enter_share(forged_value(site.paper[0]))
        with pytest.raises(WrongShares):
            opening.enter_share(site.paper[1])
        assert opening.enter_share(site.paper[2])[1]

    run(enter())


# -- passphrases -----------------------------------------------------------------------------


async def with_passphrase(rule: str) -> Site:
    anchor = PassphraseAnchor("room", cost=CHEAP)
    anchor.enter(PASSPHRASE)
    site = await make(rule, anchors={"room": anchor})
    anchor.forget()
    return site


def test_a_passphrase_opens_and_is_not_remembered() -> None:
    async def enter() -> None:
        site = await with_passphrase("a and room")
        opening = Opening(site.document)
        assert await opening.ask(site.anchors) is None
        assert "room" not in opening.failures  # it was not asked: it needs a person
        room = site.anchors["room"]
        with pytest.raises(Refused):
            await opening.enter_passphrase("room", PASSPHRASE + "!", room)
        assert await opening.enter_passphrase("room", PASSPHRASE, room)
        assert opening.answered == {"a", "room"}
        assert isinstance(room, PassphraseAnchor)
        assert room._typed is None

    run(enter())


def test_two_people_who_type_at_once_do_not_get_in_each_others_way() -> None:
    async def enter() -> None:
        site = await with_passphrase("a and room")
        opening = Opening(site.document)
        room = site.anchors["room"]
        wrong, right = await asyncio.gather(
            opening.enter_passphrase("room", PASSPHRASE + "!", room),
            opening.enter_passphrase("room", PASSPHRASE, room),
            return_exceptions=True,
        )
        assert isinstance(wrong, Refused)
        assert right is None
        assert opening.answered == {"room"}

    run(enter())


def test_a_passphrase_for_what_takes_none_is_refused() -> None:
    async def enter() -> None:
        site = await make("a and family", {"family": (1, 1)})
        opening = Opening(site.document)
        for name in ("a", "family", "other"):
            with pytest.raises(UsageError):
                await opening.enter_passphrase(name, PASSPHRASE, site.anchors.get(name))

    run(enter())


def test_what_is_open_does_not_print_its_secrets() -> None:
    async def show() -> None:
        site = await make("a")
        text = repr(site.opened) + repr(site.changed)
        assert site.opened.root.reveal().hex() not in text
        assert repr(site.opened.root.reveal())[2:-1] not in text
        material = site.opened.contents.keys["seal"].versions[1].material
        assert repr(material)[2:-1] not in text

    run(show())

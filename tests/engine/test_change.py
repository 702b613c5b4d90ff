"""Changing an open keyring: what stays, and what the old document may no longer do."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from kluis.engine import change
from kluis.engine.change import Changed
from kluis.engine.opening import Opened, Opening
from kluis.errors import (
    ChangeRefused,
    Damaged,
    ForeignShare,
    Locked,
    NotAuthentic,
    UnknownKey,
)
from kluis.keyring import body, plan, tree
from kluis.keyring.body import Contents
from kluis.keyring.document import Client, Token
from kluis.keyring.keys import Key, Version
from kluis.keyring.plan import WantedClient
from kluis.secret import Secret
from tests.engine.keyrings import (
    LATER,
    TOKEN,
    People,
    Site,
    anchors_of,
    make,
    token_of,
    until,
    wanted,
)
from tests.engine.test_opening import run
from tests.support.failing_anchor import Down, FailingAnchor, Hanging, Slow, Works, WrongAnswer

FAMILY: People = {"family": (2, 3)}


async def changed(
    site: Site,
    expression: str,
    people: People | None = None,
    heal: Collection[str] = (),
    reissue: Collection[str] = (),
    keys: Mapping[str, str] | None = None,
    clients: Mapping[str, WantedClient] | None = None,
) -> Site:
    """The site after an apply of this wish."""
    wish = wanted(expression, people, keys, clients)
    for name, anchor in anchors_of(expression, people).items():
        site.anchors.setdefault(name, anchor)
    made = plan.make(site.document, wish, heal, reissue)
    new = await change.change(site.opened, wish, made, site.anchors, token_of, LATER)
    return Site(new, site.anchors)


def open_by_paper(site: Site, paper: Collection[str]) -> Opened | None:
    """The keyring, when these shares are enough."""
    opening = Opening(site.document)
    opened = None
    for line in paper:
        _, opened = opening.enter_share(line)
    return opened


async def open_by(site: Site, *names: str) -> Opened | None:
    """The keyring, when these anchors are enough."""
    opening = Opening(site.document)
    return await opening.ask({name: site.anchors[name] for name in names})


def leaf(site: Site, name: str) -> tree.Leaf:
    return {leaf.name: leaf for _, leaf in tree.leaves(site.document.tree)}[name]


def test_a_rule_that_grows_keeps_the_root_secret_the_epoch_and_the_paper() -> None:
    async def grow() -> None:
        old = await make("disk or family", FAMILY)
        new = await changed(old, "disk or family or nas", FAMILY)
        assert new.opened.root == old.opened.root
        assert (new.document.epoch, new.document.revision) == (1, 2)
        assert new.changed.paper == {}
        assert leaf(new, "family") == leaf(old, "family")
        assert leaf(new, "disk") == leaf(old, "disk")
        assert open_by_paper(new, old.paper[1:])
        assert await open_by(new, "nas")
        assert new.opened.contents.keys == old.opened.contents.keys

    run(grow())


def test_two_of_two_becomes_two_of_three_and_the_paper_stays() -> None:
    async def grow() -> None:
        old = await make("a and family", FAMILY)
        new = await changed(old, "2 of (a, family, c)", FAMILY)
        assert new.opened.root == old.opened.root
        assert new.changed.paper == {}
        assert await open_by(new, "a", "c")
        for together in ("a", "c"):
            opening = Opening(new.document)
            assert await opening.ask({together: new.anchors[together]}) is None
            opening.enter_share(old.paper[0])
            assert opening.enter_share(old.paper[1])[1]
        assert open_by_paper(new, old.paper[:2]) is None

    run(grow())


def test_an_anchor_that_only_moved_is_sealed_anew_for_its_new_place() -> None:
    async def move() -> None:
        old = await make("a")
        new = await changed(old, "b or a")
        assert new.opened.root == old.opened.root
        assert leaf(new, "a") != leaf(old, "a")
        assert await open_by(new, "a")

    run(move())


def test_paper_whose_place_has_another_secret_is_issued_anew_and_the_old_is_refused() -> None:
    async def grow() -> None:
        old = await make("a and family", FAMILY)
        new = await changed(old, "a or family", FAMILY)
        while leaf(new, "family") == leaf(old, "family"):  # the numbers of two sets may be equal
            new = await changed(old, "a or family", FAMILY)
        assert new.opened.root == old.opened.root
        assert open_by_paper(new, new.paper[:2])
        with pytest.raises(ForeignShare):
            open_by_paper(new, old.paper[:2])

    run(grow())


def test_a_rule_that_shrinks_shuts_out_the_old_document_its_anchors_and_its_paper() -> None:
    async def shrink() -> None:
        old = await make("disk or nas or family", FAMILY)
        new = await changed(old, "disk or family", FAMILY)
        assert (new.document.epoch, new.document.revision) == (2, 2)
        assert new.opened.root != old.opened.root
        stolen = await open_by(old, "nas")
        assert stolen is not None
        with pytest.raises(NotAuthentic):
            body.open_(new.document, stolen.root)
        assert await open_by(new, "nas") is None
        assert await open_by(new, "disk")
        assert open_by_paper(new, new.paper[:2])
        if leaf(new, "family") != leaf(old, "family"):  # the numbers of two sets may be equal
            with pytest.raises(ForeignShare):
                open_by_paper(new, old.paper[:2])

    run(shrink())


def test_a_new_root_secret_rotates_every_key_and_keeps_what_the_old_versions_sealed() -> None:
    async def shrink() -> None:
        old = await make("a or b", keys={"seal": "transit", "boot": "static-seal"})
        new = await changed(old, "a", keys={"seal": "transit", "boot": "static-seal"})
        for name in ("seal", "boot"):
            before, after = old.opened.contents.keys[name], new.opened.contents.keys[name]
            assert (before.latest, after.latest) == (1, 2)
            assert after.versions[1] == before.versions[1]
            assert after.versions[2].created == LATER

    run(shrink())


def test_a_leaf_of_the_old_document_opens_nothing_in_the_new_one() -> None:
    async def swap() -> None:
        old = await make("a or b")
        new = await changed(old, "a or c")
        (path,) = [path for path, leaf in tree.leaves(new.document.tree) if leaf.name == "a"]
        swapped = tree.replace_leaf(new.document.tree, path, leaf(old, "a"))
        opening = Opening(replace(new.document, tree=swapped))
        assert await opening.ask({"a": new.anchors["a"]}) is None
        assert isinstance(opening.failures["a"], Damaged)

    run(swap())


def test_people_who_ask_for_new_paper_get_it_and_the_old_opens_nothing() -> None:
    async def reissue() -> None:
        old = await make("a or family", FAMILY)
        new = await changed(old, "a or family", FAMILY, reissue=["family"])
        assert new.document.epoch == 2
        assert open_by_paper(new, new.paper[:2])
        stolen = open_by_paper(old, old.paper[:2])
        assert stolen is not None
        with pytest.raises(NotAuthentic):
            body.open_(new.document, stolen.root)

    run(reissue())


# -- healing ---------------------------------------------------------------------------------


def test_a_leaf_that_could_not_be_sealed_is_healed_and_the_others_stay_as_they_are() -> None:
    async def heal() -> None:
        old = await make("a or b or family", FAMILY, anchors={"a": FailingAnchor("a", Down())})
        assert set(old.changed.away) == {"a"}
        old.now(a=Works())
        new = await changed(old, "a or b or family", FAMILY, heal=["a"])
        assert new.changed.away == {}
        assert new.changed.paper == {}
        assert leaf(new, "b") == leaf(old, "b")
        assert await open_by(new, "a")
        assert open_by_paper(new, old.paper[:2])

    run(heal())


def test_a_damaged_leaf_is_healed_by_a_new_anchor_of_the_same_name() -> None:
    async def heal() -> None:
        old = await make("a or family", FAMILY)
        old.anchors["a"] = FailingAnchor("a")  # the old key is lost, a new one took its place
        assert await open_by(old, "a") is None
        new = await changed(old, "a or family", FAMILY, heal=["a"])
        assert await open_by(new, "a")
        assert open_by_paper(new, old.paper[1:])

    run(heal())


def test_a_leaf_that_is_still_away_is_tried_again_with_the_next_change() -> None:
    async def heal() -> None:
        old = await make("a or b", anchors={"a": FailingAnchor("a", Down())})
        still = await changed(old, "a or b", keys={"seal": "transit", "more": "kms"})
        assert set(still.changed.away) == {"a"}
        still.now(a=Works())
        new = await changed(still, "a or b", keys={"seal": "transit"})
        assert not new.changed.away
        assert await open_by(new, "a")

    run(heal())


def test_a_change_that_would_strand_the_keyring_is_refused() -> None:
    async def strand() -> None:
        site = await make("a or b")
        site.now(a=WrongAnswer())
        with pytest.raises(ChangeRefused, match=r"^a: "):
            await changed(site, "a")
        site.now(a=Down())
        with pytest.raises(ChangeRefused):
            await changed(site, "a and b")

    run(strand())


# -- keys and clients ------------------------------------------------------------------------


def test_keys_come_and_go() -> None:
    async def edit() -> None:
        old = await make("a", keys={"seal": "transit", "old": "kms"})
        new = await changed(old, "a", keys={"seal": "transit", "new": "static-seal"})
        assert set(new.opened.contents.keys) == {"seal", "new"}
        assert new.opened.contents.keys["seal"] == old.opened.contents.keys["seal"]
        assert new.document.keys["new"].kind == "static-seal"
        assert new.document.epoch == 1

    run(edit())


def test_clients_keep_their_tokens_and_new_ones_get_theirs() -> None:
    async def edit() -> None:
        old = await make("a")
        mine = Token("cd" * 32, LATER)
        client = Client((mine,), ("seal",), "bletchley.example", ("10.0.0.0/24",))
        issued = change.rewrite(old.opened, old.opened.contents, {"bletchley": client}, LATER)
        wish = {
            "bletchley": WantedClient(("seal",), None, ("10.1.0.0/24",)),
            "new": WantedClient(("seal",)),
        }
        new = await changed(Site(issued, old.anchors), "a", clients=wish)
        assert new.document.clients == {
            "bletchley": Client((mine,), ("seal",), None, ("10.1.0.0/24",)),
            "new": Client((TOKEN,), ("seal",)),
        }

    run(edit())


def test_rotating_a_key_adds_a_version_and_touches_nothing_else() -> None:
    site = run(make("a or family", FAMILY))
    rotated = change.rotate_key(site.opened, "seal", LATER).opened
    assert rotated.document.keys["seal"].latest == 2
    assert (rotated.document.revision, rotated.document.epoch) == (2, 1)
    assert rotated.document.tree == site.document.tree
    assert rotated.contents.leaves == site.opened.contents.leaves
    assert (
        rotated.contents.keys["seal"].versions[1] == site.opened.contents.keys["seal"].versions[1]
    )


def test_what_can_not_be_rotated_is_refused() -> None:
    site = run(make("a"))
    with pytest.raises(UnknownKey):
        change.rotate_key(site.opened, "other", LATER)
    shares = Key("unseal-shares", {1: Version(b"shares", LATER)})
    contents = Contents({"shares": shares}, site.opened.contents.leaves)
    imported = change.rewrite(site.opened, contents, {}, LATER)
    with pytest.raises(ChangeRefused, match="kind unseal-shares"):
        change.rotate_key(imported.opened, "shares", LATER)


# -- a lock meanwhile ------------------------------------------------------------------------


def test_a_change_during_which_the_keyring_is_locked_never_seals_under_zeros() -> None:
    async def lock_meanwhile() -> None:
        old = await make("a or b")
        root = Secret(old.opened.root.reveal())
        old.now(b=Slow(0.01))
        changing = asyncio.create_task(changed(old, "b or a"))
        old.anchor("b").asked.clear()
        await old.anchor("b").asked.wait()
        old.opened.wipe()
        new = await changing
        assert body.open_(new.document, root) == new.opened.contents
        assert new.opened.root == root

    run(lock_meanwhile())


def test_nothing_is_made_of_what_was_locked_before() -> None:
    async def too_late() -> None:
        site = await make("a or b")
        site.opened.wipe()
        with pytest.raises(Locked):
            await changed(site, "b or a")
        with pytest.raises(Locked):
            change.rotate_key(site.opened, "seal", LATER)

    run(too_late())


def test_a_document_made_of_another_has_secrets_of_its_own() -> None:
    site = run(make("a and b"))
    copy = change.rewrite(site.opened, site.opened.contents, {}, LATER).opened
    root = Secret(copy.root.reveal())
    site.opened.wipe()
    assert copy.root == root
    assert Secret(bytes(32)) not in copy.contents.leaves.values()


def test_a_change_that_is_cancelled_leaves_no_task() -> None:
    async def cancel() -> None:
        site = await make("a or b")
        site.now(b=Hanging())
        changing = asyncio.create_task(changed(site, "b or a"))
        site.anchor("b").asked.clear()
        await site.anchor("b").asked.wait()
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run(cancel())


def test_paper_is_not_printed_by_accident() -> None:
    made: Changed = run(make("family", FAMILY)).changed
    assert repr(made) == "Changed(homelab, paper for ['family'])"

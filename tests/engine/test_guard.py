"""The guard of one keyring: it opens when it can, holds when told, and drops its secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kluis.anchors.base import Anchor, Pace
from kluis.anchors.passphrase import PassphraseAnchor
from kluis.engine import change
from kluis.engine.guard import Guard, Rhythm
from kluis.engine.status import Event
from kluis.engine.survey import Finding
from kluis.errors import (
    Conflict,
    Damaged,
    Locked,
    Refused,
    RepeatedShare,
    UnknownKey,
    Unreachable,
)
from kluis.keyring import tree
from kluis.keyring.keys import TransitKey
from kluis.secret import Secret
from kluis.store.directory import DirectoryStore
from tests.engine.keyrings import LATER, PATIENCE_S, People, Site, make, until
from tests.engine.test_opening import CHEAP, PASSPHRASE, run, with_passphrase
from tests.support.failing_anchor import (
    Down,
    FailingAnchor,
    Flapping,
    Hanging,
    IsMissing,
    Refuses,
    Slow,
    Works,
    WrongAnswer,
)

FAMILY: People = {"family": (2, 3)}
SOON = Rhythm(knock_s=0.001, survey_s=60.0)
NEVER = Rhythm(knock_s=3600.0, survey_s=3600.0)
SLOW = Pace(3600.0, 3600.0)
WIPED = Secret(bytes(32))


@dataclass
class Post:
    """A guard of a keyring that rests in a store."""

    site: Site
    store: DirectoryStore
    guard: Guard
    events: list[Event] = field(default_factory=list)


def post(site: Site, folder: Path, rhythm: Rhythm = SOON) -> Post:
    store = DirectoryStore(folder / "state")
    store.save(site.document, after=0)
    events: list[Event] = []
    guard = Guard(site.document, store, site.anchors, rhythm, events.append)
    return Post(site, store, guard, events)


@asynccontextmanager
async def kept(guard: Guard) -> AsyncIterator[None]:
    """While the guard keeps its keyring open; afterwards no task is left."""
    before = len(asyncio.all_tasks())
    keeping = asyncio.create_task(guard.keep_open())
    try:
        yield
        assert not keeping.done(), keeping.exception()
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
    await until(lambda: len(asyncio.all_tasks()) == before)


# -- waiting ---------------------------------------------------------------------------------


def test_it_opens_when_an_anchor_comes_back(tmp_path: Path) -> None:
    async def come_back() -> None:
        site = await make("a")
        site.now(a=Flapping(*[Down()] * 5, Works()))
        here = post(site, tmp_path)
        async with kept(here.guard):
            assert not here.guard.is_open
            assert await here.guard.wait_open(PATIENCE_S)
        assert site.anchor("a").calls["open"] >= 7
        assert [event.what for event in here.events] == ["anchor fails", "opened"]

    run(come_back())


def test_one_that_hangs_does_not_slow_down_one_that_comes_back(tmp_path: Path) -> None:
    async def come_back() -> None:
        site = await make("a or h")
        site.now(a=Flapping(*[Down()] * 3, Works()), h=Hanging())
        here = post(site, tmp_path)
        async with kept(here.guard):
            assert await here.guard.wait_open(PATIENCE_S)

    run(come_back())


def test_a_slow_anchor_is_not_asked_anew_before_it_has_answered(tmp_path: Path) -> None:
    async def slow() -> None:
        site = await make("a")
        site.now(a=Slow(0.05))  # far above the interval
        here = post(site, tmp_path)
        async with kept(here.guard):
            assert await here.guard.wait_open(PATIENCE_S)
            assert site.anchor("a").calls["open"] == 2

    run(slow())


def test_waking_it_asks_at_once(tmp_path: Path) -> None:
    async def wake() -> None:
        site = await make("a")
        site.now(a=Flapping(Down(), Works()))
        site.anchor("a").pace = SLOW
        here = post(site, tmp_path, NEVER)
        async with kept(here.guard):
            await until(lambda: here.guard.anchor_statuses()["a"].state == "unreachable")
            here.guard.wake()
            assert await here.guard.wait_open(PATIENCE_S)

    run(wake())


def test_waiting_ends_when_nothing_opens(tmp_path: Path) -> None:
    async def wait() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        assert not await here.guard.wait_open(0.01)
        assert not await here.guard.wait_open(0)
        assert await here.guard.try_open()
        assert await here.guard.wait_open(0)

    run(wait())


def test_who_waits_is_not_deceived_by_an_opening_that_was_undone(tmp_path: Path) -> None:
    async def undo() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        waiting = asyncio.create_task(here.guard.wait_open(PATIENCE_S))
        await asyncio.sleep(0)
        here.guard.adopt(site.opened)
        here.guard.lock()  # before the one who waits has run
        await asyncio.sleep(0)
        assert not waiting.done()
        here.guard.release()
        assert await here.guard.try_open()
        assert await waiting

    run(undo())


def test_many_who_try_at_once_open_it_once(tmp_path: Path) -> None:
    async def try_all() -> None:
        site = await make("a and b")
        site.now(a=Slow(0.01))
        here = post(site, tmp_path)
        assert await asyncio.gather(*(here.guard.try_open() for _ in range(5))) == [True] * 5
        assert here.events == [Event("homelab", "opened")]
        assert site.anchor("b").calls["open"] == 2

    run(try_all())


# -- people ----------------------------------------------------------------------------------


def test_shares_open_it_and_the_progress_is_seen(tmp_path: Path) -> None:
    async def enter() -> None:
        site = await make("a or family", FAMILY)
        site.now(a=IsMissing())
        here = post(site, tmp_path)
        assert not await here.guard.try_open()
        assert here.guard.lacks() == (("family",),)
        assert here.guard.enter_share(site.paper[0]) == "family"
        with pytest.raises(RepeatedShare):
            here.guard.enter_share(site.paper[0])
        assert here.guard.progress() == {"family": (1, 2)}
        assert here.guard.people() == [(1, 2, 3)]
        assert here.guard.lacks() == (("family",),)
        assert here.guard.enter_share(site.paper[2]) == "family"
        assert here.guard.is_open
        assert here.guard.lacks() == ()
        assert here.guard.progress() == {"family": (0, 2)}  # what was entered is forgotten

    run(enter())


def test_people_and_an_anchor_that_answers_while_they_enter(tmp_path: Path) -> None:
    async def enter() -> None:
        site = await make("a and family", FAMILY)
        site.now(a=Slow(0.02))
        here = post(site, tmp_path)
        async with kept(here.guard):
            here.guard.enter_share(site.paper[0])
            await asyncio.sleep(0)
            here.guard.enter_share(site.paper[1])
            assert not here.guard.is_open
            assert await here.guard.wait_open(PATIENCE_S)

    run(enter())


def test_shares_entered_while_it_opened_by_itself_change_nothing(tmp_path: Path) -> None:
    async def enter() -> None:
        site = await make("a or family", FAMILY)
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        opened = here.guard.opened
        here.guard.enter_share(site.paper[0])
        here.guard.enter_share(site.paper[1])
        assert here.guard.opened is opened
        assert here.events == [Event("homelab", "opened")]

    run(enter())


def test_a_passphrase_opens_it(tmp_path: Path) -> None:
    async def enter() -> None:
        site = await with_passphrase("a and room")
        here = post(site, tmp_path)
        assert not await here.guard.try_open()
        assert here.guard.anchor_statuses()["room"].next_step.endswith("--passphrase room")
        with pytest.raises(Refused):
            await here.guard.enter_passphrase("room", "another passphrase")
        await here.guard.enter_passphrase("room", PASSPHRASE)
        assert here.guard.is_open

    run(enter())


def test_a_passphrase_that_was_typed_before_a_lock_does_not_undo_it(tmp_path: Path) -> None:
    async def enter() -> None:
        site = await with_passphrase("room")
        here = post(site, tmp_path)
        typing = asyncio.create_task(here.guard.enter_passphrase("room", PASSPHRASE))
        await asyncio.sleep(0)
        here.guard.lock()
        await typing
        assert not here.guard.is_open

    run(enter())


# -- locking ---------------------------------------------------------------------------------


def test_a_lock_wipes_every_secret(tmp_path: Path) -> None:
    async def lock() -> None:
        site = await make("a and b")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        opened = here.guard.require_open()
        assert opened.root != WIPED
        here.guard.lock()
        assert opened.root == WIPED
        assert list(opened.contents.leaves.values()) == [WIPED, WIPED]
        assert here.guard.opened is None
        with pytest.raises(Locked):
            here.guard.require_open()
        with pytest.raises(Locked):
            here.guard.transit("seal")
        assert here.events == [Event("homelab", "opened"), Event("homelab", "locked")]
        here.guard.lock()
        assert len(here.events) == 2

    run(lock())


def test_a_lock_by_hand_holds_until_it_is_released(tmp_path: Path) -> None:
    async def hold() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        async with kept(here.guard):
            assert await here.guard.wait_open(PATIENCE_S)
            here.guard.lock()
            asked = site.anchor("a").calls["open"]
            for _ in range(5):
                here.guard.wake()
                await asyncio.sleep(0.002)  # longer than the interval
            assert not await here.guard.try_open()
            assert site.anchor("a").calls["open"] == asked
            here.guard.release()
            assert await here.guard.wait_open(PATIENCE_S)

    run(hold())


def test_people_may_open_what_was_locked_by_hand(tmp_path: Path) -> None:
    async def enter() -> None:
        site = await make("a or family", FAMILY)
        here = post(site, tmp_path)
        here.guard.enter_share(site.paper[0])
        here.guard.lock()
        assert here.guard.progress() == {"family": (0, 2)}  # what was entered is forgotten
        here.guard.enter_share(site.paper[0])
        here.guard.enter_share(site.paper[1])
        assert here.guard.is_open
        assert not here.guard.held

    run(enter())


def test_an_answer_that_was_under_way_when_it_was_locked_does_not_open_it(tmp_path: Path) -> None:
    async def lock_meanwhile() -> None:
        site = await make("a")
        site.now(a=Slow(0.01))
        here = post(site, tmp_path)
        trying = asyncio.create_task(here.guard.try_open())
        await asyncio.sleep(0)
        here.guard.lock()
        assert not await trying
        assert not here.guard.is_open
        assert here.events == []

    run(lock_meanwhile())


def test_a_release_is_not_held_up_by_an_anchor_that_hangs_in_a_survey(tmp_path: Path) -> None:
    async def release() -> None:
        site = await make("a or h")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        site.now(h=Hanging())
        site.anchor("h").asked.clear()
        async with kept(here.guard):
            await site.anchor("h").asked.wait()
            here.guard.lock()
            here.guard.release()
            assert await here.guard.wait_open(PATIENCE_S)

    run(release())


def test_a_callback_sees_the_state_that_it_is_told(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a")
        seen: list[tuple[str, bool]] = []
        guard: Guard = Guard(
            site.document,
            DirectoryStore(tmp_path),
            site.anchors,
            SOON,
            lambda event: seen.append((event.what, guard.is_open)),
        )
        assert await guard.try_open()
        guard.lock()
        assert seen == [("opened", True), ("locked", False)]

    run(look())


def test_without_a_listener_it_opens_all_the_same(tmp_path: Path) -> None:
    async def open_() -> None:
        site = await make("a")
        guard = Guard(site.document, DirectoryStore(tmp_path), site.anchors)
        assert await guard.try_open()

    run(open_())


# -- saving ----------------------------------------------------------------------------------


def test_a_change_is_saved_and_is_the_present_one(tmp_path: Path) -> None:
    async def save() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        rotated = change.rotate_key(here.guard.require_open(), "seal", LATER).opened
        here.guard.save(rotated)
        assert here.store.load("homelab") == here.guard.document == rotated.document
        assert here.guard.transit("seal").latest == 2
        assert here.events == [Event("homelab", "opened")]

    run(save())


def test_a_conflict_leaves_the_guard_as_it_was(tmp_path: Path) -> None:
    async def conflict() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        opened = here.guard.require_open()
        rotated = change.rotate_key(opened, "seal", LATER).opened
        here.store.save(rotated.document, after=1)  # somebody else was faster
        with pytest.raises(Conflict):
            here.guard.save(change.rotate_key(opened, "seal", LATER).opened)
        assert here.guard.opened is opened
        assert here.guard.document == site.document
        assert here.guard.transit("seal").latest == 1

    run(conflict())


def test_a_change_does_not_undo_a_lock_and_is_not_written(tmp_path: Path) -> None:
    async def lock_meanwhile() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        rotated = change.rotate_key(here.guard.require_open(), "seal", LATER).opened
        here.guard.lock()
        with pytest.raises(Locked):
            here.guard.save(rotated)
        assert here.store.load("homelab") == site.document
        assert not here.guard.is_open

    run(lock_meanwhile())


def test_a_lock_after_a_change_wipes_the_new_secrets(tmp_path: Path) -> None:
    async def lock() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        rotated = change.rotate_key(here.guard.require_open(), "seal", LATER).opened
        here.guard.save(rotated)
        here.guard.lock()
        assert rotated.root == WIPED

    run(lock())


# -- keys ------------------------------------------------------------------------------------


def test_keys_are_found_by_name_and_kind(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a", keys={"seal": "transit", "boot": "static-seal"})
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        assert isinstance(here.guard.transit("seal"), TransitKey)
        assert here.guard.key("boot", "static-seal").latest == 1
        with pytest.raises(UnknownKey) as caught:
            here.guard.transit("boot")
        assert caught.value.means == "it is of kind static-seal"
        with pytest.raises(UnknownKey) as caught:
            here.guard.key("other", "transit")
        assert caught.value.means == "there is none"

    run(look())


# -- what is known of the anchors ------------------------------------------------------------


def states(guard: Guard) -> dict[str, str]:
    return {name: status.state for name, status in guard.anchor_statuses().items()}


def test_every_state_has_its_word(tmp_path: Path) -> None:
    async def look() -> None:
        room = PassphraseAnchor("room", cost=CHEAP)
        room.enter(PASSPHRASE)
        names = "good or (down and refuses and missing and family and room)"
        site = await make(names, FAMILY, anchors={"room": room})
        room.forget()
        site.now(good=Slow(0.01), down=Down(), refuses=Refuses(), missing=IsMissing())
        here = post(site, tmp_path)
        assert set(states(here.guard).values()) == {"waiting"}
        assert await here.guard.try_open()
        expected = {
            "good": "ok",
            "down": "unreachable",
            "refuses": "refused",
            "missing": "missing",
            "family": "waiting",
            "room": "waiting",
        }
        assert states(here.guard) == expected
        assert all(
            s.next_step == "" for s in here.guard.anchor_statuses().values() if s.state == "ok"
        )
        await here.guard.survey()
        assert states(here.guard) == expected

    run(look())


def test_a_leaf_that_is_not_sealed_yet_is_damaged(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a or b", anchors={"b": FailingAnchor("b", Down())})
        here = post(site, tmp_path)
        assert here.guard.anchor_statuses()["b"].seen == "not sealed yet"
        assert states(here.guard) == {"a": "waiting", "b": "damaged"}

    run(look())


def test_a_survey_names_the_wrong_anchor_and_those_that_fail(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a or w or d")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        site.now(w=WrongAnswer(), d=Down())
        found = await here.guard.survey()
        assert found["a"] == Finding()
        assert isinstance(found["w"].failure, Damaged)
        assert isinstance(found["d"].failure, Unreachable)
        assert states(here.guard) == {"a": "ok", "w": "damaged", "d": "unreachable"}
        site.now(w=Works(), d=Works())
        await here.guard.survey()
        assert set(states(here.guard).values()) == {"ok"}

    run(look())


def test_it_surveys_by_itself_also_while_one_is_slow(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a or w")
        here = post(site, tmp_path, Rhythm(0.001, survey_s=0.002))
        assert await here.guard.try_open()
        site.now(a=Slow(0.02), w=WrongAnswer())  # slower than the interval
        async with kept(here.guard):
            await until(lambda: states(here.guard) == {"a": "ok", "w": "damaged"})

    run(look())


def test_it_surveys_again_and_again(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a")
        here = post(site, tmp_path, Rhythm(0.001, survey_s=0.001))
        async with kept(here.guard):
            await until(lambda: site.anchor("a").calls["open"] > 5)

    run(look())


def test_a_survey_during_which_it_is_locked_accuses_nobody(tmp_path: Path) -> None:
    async def lock_meanwhile() -> None:
        site = await make("a or b")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        asyncio.get_running_loop().call_soon(here.guard.lock)  # before any anchor is asked
        found = await here.guard.survey()
        assert not here.guard.is_open
        assert found == {"a": Finding(), "b": Finding()}
        assert states(here.guard) == {"a": "waiting", "b": "waiting"}

    run(lock_meanwhile())


def test_what_was_seen_while_it_was_open_is_not_held_against_one_that_answers_now(
    tmp_path: Path,
) -> None:
    async def look() -> None:
        site = await make("a and b")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        site.now(a=Down(), b=Down())
        await here.guard.survey()
        assert set(states(here.guard).values()) == {"unreachable"}
        here.guard.lock()
        here.guard.release()
        site.now(a=Works())
        assert not await here.guard.try_open()
        assert states(here.guard) == {"a": "ok", "b": "unreachable"}

    run(look())


def test_a_survey_needs_it_open(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a")
        with pytest.raises(Locked):
            await post(site, tmp_path).guard.survey()

    run(look())


def test_a_wrong_anchor_that_did_not_keep_it_from_opening_is_named(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("2 of (w, a, b)")
        site.now(w=WrongAnswer(), a=Slow(0.01), b=Slow(0.02))
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        assert states(here.guard)["w"] == "damaged"
        assert states(here.guard)["a"] == "ok"

    run(look())


def test_a_new_configuration_is_used_at_once(tmp_path: Path) -> None:
    async def redraw() -> None:
        site = await make("a")
        site.now(a=Hanging())
        here = post(site, tmp_path)
        async with kept(here.guard):
            site.anchor("a").asked.clear()
            await site.anchor("a").asked.wait()
            new = FailingAnchor("a")
            new._key = site.anchor("a")._key
            anchors: dict[str, Anchor] = {"a": new}
            here.guard.anchors = anchors
            here.guard.wake()
            assert await here.guard.wait_open(PATIENCE_S)

    run(redraw())


def test_the_tree_of_the_present_document_is_the_one_that_is_shown(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a or b")
        here = post(site, tmp_path)
        assert here.guard.name == "homelab"
        assert set(states(here.guard)) == {leaf.name for _, leaf in tree.leaves(site.document.tree)}

    run(look())


# -- a lock that came in between ------------------------------------


def test_a_lock_that_came_after_an_unlock_began_holds(tmp_path: Path) -> None:
    async def interleave() -> None:
        here = post(await make("a"), tmp_path, NEVER)
        began = here.guard.locks
        here.guard.lock()
        here.guard.release(began)
        assert here.guard.held
        here.guard.release(here.guard.locks)
        assert not here.guard.held

    run(interleave())


def test_an_opening_is_remembered_by_the_store_only_once_it_is_proven(tmp_path: Path) -> None:
    async def prove() -> None:
        here = post(await make("a"), tmp_path, NEVER)
        mark = tmp_path / "state" / "homelab.seen"
        mark.unlink()
        here.store.load("homelab")
        assert not mark.exists()
        assert await here.guard.try_open()
        assert mark.exists()

    run(prove())


def test_the_status_of_a_lock_by_hand_says_that_nobody_is_asked(tmp_path: Path) -> None:
    async def locked() -> None:
        here = post(await make("a or b"), tmp_path, NEVER)
        assert here.guard.anchor_statuses()["a"].seen == "not asked yet"
        here.guard.lock()
        assert "by hand" in here.guard.anchor_statuses()["a"].seen

    run(locked())

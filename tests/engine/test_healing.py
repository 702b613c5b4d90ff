"""Healing: what would not open at the next outage is sealed anew, proven, written and told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kluis.anchors.base import Notice, Pace
from kluis.engine import healing, status
from kluis.engine.change import rotate_key
from kluis.engine.guard import Guard, Rhythm
from kluis.engine.healing import Patience
from kluis.engine.health import Health
from kluis.engine.sealing import seal_document
from kluis.engine.status import Event
from kluis.engine.survey import Finding
from kluis.errors import Changed, ChangeRefused, Damaged, Locked, WriteFailed
from kluis.keyring import tree
from tests.engine.keyrings import LATER, PATIENCE_S, Site, make, until
from tests.engine.test_guard import Post, kept, post, states
from tests.engine.test_opening import run
from tests.engine.test_turns import Clock
from tests.support.failing_anchor import Down, FailingAnchor, IsDamaged, Works, WrongAnswer

OFTEN = Rhythm(knock_s=0.001, survey_s=0.002, sure_after=2)
PCR = Changed("PCR 7 is another", "the firmware was updated", "kluis heal")


def leaf(guard: Guard, name: str) -> tree.AnchorLeaf:
    (found,) = [leaf for _, leaf in tree.machine_leaves(guard.document.tree) if leaf.name == name]
    return found


def new_key(site: Site, name: str) -> None:
    """The anchor's key was replaced: what it sealed opens no more, and it can seal anew."""
    site.anchor(name)._key = FailingAnchor(name)._key


def told(here: Post) -> list[Event]:
    return [event for event in here.events if event.what != "opened"]


async def unsealed(tmp_path: Path) -> Post:
    """A keyring that was made while b was away; b is back."""
    site = await make("a or b")
    document = site.document
    for path, found in tree.machine_leaves(document.tree):
        if found.name == "b":
            node = tree.replace_leaf(document.tree, path, tree.AnchorLeaf("b", "failing"))
    bare = seal_document(replace(document, tree=node), site.opened.root, site.opened.contents)
    changed = replace(site.changed, opened=replace(site.opened, document=bare))
    return post(Site(changed, site.anchors), tmp_path, OFTEN)


def test_a_leaf_that_was_never_sealed_is_sealed_by_the_running_service(tmp_path: Path) -> None:
    async def heal() -> None:
        here = await unsealed(tmp_path)
        async with kept(here.guard):
            await until(lambda: leaf(here.guard, "b").sealed is not None)
        assert here.store.load("homelab").revision == here.guard.document.revision == 2
        assert Event("homelab", status.HEALED, "b", "not sealed yet") in here.events

    run(heal())


@pytest.mark.parametrize("what", ["key replaced", "refused for good", "rotated", "wrong answer"])
def test_what_sealing_anew_heals_is_healed(tmp_path: Path, what: str) -> None:
    async def heal() -> None:
        site = await make("a or b")
        here = post(site, tmp_path, OFTEN)
        before, anchor = leaf(here.guard, "b").sealed, site.anchor("b")

        async def opening_of_old_leaf_only(sealed: object, context: bytes) -> object:
            if sealed == before:
                raise PCR
            return await FailingAnchor._open(anchor, sealed, context)  # type: ignore[arg-type]

        async def outdated(sealed: object) -> str:
            return "the key is at version 2" if sealed == before else ""

        assert await here.guard.try_open()
        if what == "key replaced":
            new_key(site, "b")
        elif what == "refused for good":
            anchor._open = opening_of_old_leaf_only  # type: ignore[method-assign,assignment]
        elif what == "rotated":
            anchor._outdated = outdated  # type: ignore[method-assign]
        else:
            anchor.now = WrongAnswer()
        async with kept(here.guard):
            if what == "wrong answer":
                await until(lambda: any(e.what == status.NOT_HEALED for e in here.events))
                assert leaf(here.guard, "b").sealed == before
                return
            await until(lambda: leaf(here.guard, "b").sealed != before)
            await until(lambda: states(here.guard)["b"] == "ok")
        assert here.store.load("homelab").epoch == 1
        assert any(event.what == status.HEALED and event.anchor == "b" for event in here.events)
        assert leaf(here.guard, "a") == leaf(post(site, tmp_path / "other").guard, "a")

    run(heal())


def test_an_anchor_that_waits_for_a_person_is_left_and_told_of_once(tmp_path: Path) -> None:
    async def wait() -> None:
        site = await make("a or b")
        here = post(site, tmp_path, OFTEN)
        assert await here.guard.try_open()
        site.anchor("b").heals = False
        new_key(site, "b")
        async with kept(here.guard):
            await until(lambda: site.anchor("b").calls["open"] > 9)
        assert here.guard.document.revision == 1
        assert [e.what for e in told(here)] == [status.FAILS, status.ASKS]
        healed = await here.guard.heal({"b": "a person said so"})
        assert healed.names == ("b",)
        assert here.guard.document.revision == 2

    run(wait())


def test_one_that_is_away_is_not_touched(tmp_path: Path) -> None:
    async def away() -> None:
        site = await make("a or b")
        here = post(site, tmp_path, OFTEN)
        assert await here.guard.try_open()
        site.now(b=Down())
        async with kept(here.guard):
            await until(lambda: any(e.what == status.FAILS for e in here.events))
            site.now(b=Works())
            await until(lambda: any(e.what == status.WORKS_AGAIN for e in here.events))
        assert site.anchor("b").calls["seal"] == 1
        assert here.guard.document.revision == 1

    run(away())


def test_what_can_not_be_healed_is_told_and_the_rest_is_healed(tmp_path: Path) -> None:
    async def both() -> None:
        site = await make("a or b or c")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        new_key(site, "b")
        site.now(c=IsDamaged())
        found = await here.guard.survey()
        sick = {name: finding.ailment for name, finding in found.items() if finding.ailment}
        healed = await here.guard.heal(sick)
        assert healed.names == ("b",)
        assert isinstance(healed.failures["c"], Damaged)
        assert {e.what for e in told(here)} == {status.HEALED, status.NOT_HEALED}
        assert here.store.load("homelab").revision == 2

    run(both())


def test_nothing_is_written_when_nothing_could_be_sealed(tmp_path: Path) -> None:
    async def nothing() -> None:
        site = await make("a or b")
        site.now(b=Down())
        healed = await healing.heal(site.opened, {"b"}, site.anchors, LATER)
        assert healed.opened is None
        assert set(healed.failures) == {"b"}

    run(nothing())


def test_a_locked_keyring_is_not_healed(tmp_path: Path) -> None:
    async def locked() -> None:
        here = post(await make("a"), tmp_path)
        with pytest.raises(Locked):
            await here.guard.heal({"a": "why"})

    run(locked())


def test_a_lock_while_it_heals_is_not_undone_and_nothing_is_written(tmp_path: Path) -> None:
    async def lock() -> None:
        site = await make("a or b")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        new_key(site, "b")

        async def locking(secret: object, context: bytes) -> object:
            here.guard.lock()
            return await FailingAnchor._seal(site.anchor("b"), secret, context)  # type: ignore[arg-type]

        site.anchor("b")._seal = locking  # type: ignore[method-assign,assignment]
        with pytest.raises(Locked):
            await here.guard.heal({"b": "its key was replaced"})
        assert here.store.load("homelab").revision == 1
        assert not here.guard.is_open

    run(lock())


def test_who_changes_the_keyring_is_waited_for_and_what_they_wrote_is_not_undone(
    tmp_path: Path,
) -> None:
    async def change() -> None:
        site = await make("a or b")
        here = post(site, tmp_path, OFTEN)
        assert await here.guard.try_open()
        new_key(site, "b")
        async with here.guard._changing, kept(here.guard):
            await until(lambda: any(e.what == status.FAILS for e in here.events))
            for _ in range(50):
                await asyncio.sleep(0)
            assert here.guard.document.revision == 1

    run(change())


def test_a_notice_is_told_once_and_shown(tmp_path: Path) -> None:
    async def notice() -> None:
        site = await make("a")
        here = post(site, tmp_path, OFTEN)
        said = Notice("its token expires in 3 days", "it can't be renewed", "issue a new one")
        site.anchor("a").notice = said
        async with kept(here.guard):
            await until(lambda: site.anchor("a").calls["open"] > 6)
            assert here.guard.anchor_statuses()["a"].notice == said
        assert told(here) == [Event("homelab", status.NOTICED, "a", said.seen)]

    run(notice())


def test_status_says_who_will_seal_an_outdated_leaf_anew(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a or b")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        for name in ("a", "b"):
            site.anchor(name).rotated = "the key is at version 2"
        site.anchor("b").heals = False
        await here.guard.survey()
        said = here.guard.anchor_statuses()
        assert [said[name].state for name in ("a", "b")] == ["ok", "ok"]
        notices = [said[name].notice for name in ("a", "b")]
        steps = [notice.next_step for notice in notices if notice]
        assert steps == ["a running service does that", "kluis heal does that"]

    run(look())


def test_an_anchor_that_opens_and_does_not_say_more_is_well(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a")
        here = post(site, tmp_path)
        assert await here.guard.try_open()

        async def silent(sealed: object) -> str:
            raise ChangeRefused("no")

        site.anchor("a")._outdated = silent  # type: ignore[method-assign]
        assert (await here.guard.survey())["a"].ailment == ""

    run(look())


def test_patience_grows_from_a_minute_to_a_day_and_health_ends_it() -> None:
    clock = Clock()
    patience = Patience(clock)
    rests = []
    for _ in range(13):
        assert patience.may_try("a")
        patience.tried("a")
        assert not patience.may_try("a")
        began = clock.now_s
        while not patience.may_try("a"):
            clock.now_s += 60
        rests.append((clock.now_s - began) / 60)
    assert rests == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]
    assert patience.may_try("b")
    clock.now_s += 2 * 86_400
    patience.tried("a")
    clock.now_s += 60
    assert patience.may_try("a")


def test_a_survey_leaves_each_anchor_the_rest_that_it_needs(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a or b")
        site.anchor("b").pace = Pace(3600.0, 3600.0)
        here = post(site, tmp_path, OFTEN)
        async with kept(here.guard):
            await until(lambda: site.anchor("a").calls["open"] > 3)
            assert site.anchor("b").calls["open"] == 2  # the proof of the seal, and the opening
            assert states(here.guard)["b"] in ("ok", "waiting")

    run(look())


def test_a_fault_in_a_survey_is_not_silent(tmp_path: Path) -> None:
    async def fault() -> None:
        site = await make("a")
        here = post(site, tmp_path, OFTEN)
        assert await here.guard.try_open()

        async def broken(*args: object, **options: object) -> None:
            raise ZeroDivisionError

        here.guard.health.survey = broken  # type: ignore[method-assign,assignment]
        with pytest.raises(ZeroDivisionError):
            await here.guard.keep_open()

    run(fault())


def test_an_anchor_that_the_configuration_lost_is_told(tmp_path: Path) -> None:
    async def lose() -> None:
        site = await make("a or b")
        here = post(site, tmp_path, OFTEN)
        assert await here.guard.try_open()
        here.guard.anchors = {"a": site.anchors["a"]}
        async with kept(here.guard):
            await until(lambda: any(e.what == status.FAILS for e in here.events))
        assert states(here.guard) == {"a": "ok", "b": "misconfigured"}

    run(lose())


def test_with_nobody_to_ask_it_waits_for_a_new_configuration(tmp_path: Path) -> None:
    async def wait() -> None:
        site = await make("a")
        here = post(site, tmp_path, OFTEN)
        anchors, here.guard.anchors = here.guard.anchors, {}
        async with kept(here.guard):
            await until(lambda: states(here.guard)["a"] == "misconfigured")
            here.guard.anchors = anchors
            assert await here.guard.wait_open(PATIENCE_S)

    run(wait())


def test_a_disk_that_is_full_does_not_end_the_guard(tmp_path: Path) -> None:
    async def full() -> None:
        site = await make("a or b")
        here = post(site, tmp_path, OFTEN)
        assert await here.guard.try_open()
        new_key(site, "b")

        def refuse(*args: object, **options: object) -> None:
            raise WriteFailed("no space left on the device")

        here.store.save = refuse  # type: ignore[method-assign]
        failed = Event("homelab", status.NOT_HEALED, "b", "no space left on the device")
        async with kept(here.guard):
            await until(lambda: failed in here.events)
            assert here.guard.is_open
        assert here.guard.document.revision == 1

    run(full())


# -- what an attack or an accident must not do --------------------------------------------------


def test_a_lock_and_an_unlock_that_opened_nothing_are_not_undone_by_a_heal(tmp_path: Path) -> None:
    async def lock() -> None:
        site = await make("a or b")
        here = post(site, tmp_path)
        assert await here.guard.try_open()
        new_key(site, "b")

        async def locking(secret: object, context: bytes) -> object:
            here.guard.lock()
            site.now(a=Down(), b=Down())
            here.guard.release()
            assert not await here.guard.try_open()
            site.now(b=Works())
            return await FailingAnchor._seal(site.anchor("b"), secret, context)  # type: ignore[arg-type]

        site.anchor("b")._seal = locking  # type: ignore[method-assign,assignment]
        with pytest.raises(Locked):
            await here.guard.heal({"b": "its key was replaced"})
        assert not here.guard.is_open
        assert here.store.load("homelab").revision == 1

    run(lock())


def test_no_failure_that_is_kept_holds_the_frames_in_which_secrets_were(tmp_path: Path) -> None:
    async def look() -> None:
        site = await make("a or b or c")
        here = post(site, tmp_path)
        site.now(b=Down())
        assert await here.guard.try_open()
        new_key(site, "c")
        found = await here.guard.survey()
        failures = [finding.failure for finding in found.values() if finding.failure]
        failures += here.guard._opening.failures.values()
        assert len(failures) >= 2
        for failure in failures:
            assert failure.__traceback__ is None
            assert failure.__context__ is None
            assert failure.__cause__ is None

    run(look())


def test_a_wrong_key_that_is_there_for_one_survey_only_gets_no_leaf(tmp_path: Path) -> None:
    async def stick() -> None:
        site = await make("a or b")
        here = post(site, tmp_path, Rhythm(knock_s=0.001, survey_s=0.002, sure_after=3))
        assert await here.guard.try_open()
        right = site.anchor("b")._key
        async with kept(here.guard):
            for _ in range(3):
                new_key(site, "b")
                await until(lambda: states(here.guard)["b"] == "damaged")
                site.anchor("b")._key = right
                await until(lambda: states(here.guard)["b"] == "ok")
        assert here.guard.document.revision == 1

    run(stick())


def test_a_notice_whose_time_runs_is_told_once(tmp_path: Path) -> None:
    async def notice() -> None:
        site = await make("a")
        here = post(site, tmp_path, OFTEN)
        anchor = site.anchor("a")

        async def counting(sealed: object) -> str:
            left = 100 - anchor.calls["open"]
            anchor.notice = Notice(f"good for {left} more uses", "it ends", "issue a new one")
            return ""

        anchor._outdated = counting  # type: ignore[method-assign]
        async with kept(here.guard):
            await until(lambda: anchor.calls["open"] > 9)
        assert [event.what for event in told(here)] == [status.NOTICED]

    run(notice())


def test_a_fault_while_it_opens_is_no_answer_and_it_opens_afterwards(tmp_path: Path) -> None:
    async def fault() -> None:
        site = await make("a")
        here = post(site, tmp_path, OFTEN)
        adopt, here.guard.adopt = here.guard.adopt, broken  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            await here.guard.keep_open()
        here.guard.adopt = adopt  # type: ignore[method-assign]
        async with kept(here.guard):
            assert await here.guard.wait_open(PATIENCE_S)

    def broken(opened: object) -> None:
        raise ZeroDivisionError

    run(fault())


def test_after_a_change_what_is_known_of_a_leaf_that_stayed_is_still_known(tmp_path: Path) -> None:
    async def change() -> None:
        here = await unsealed(tmp_path)
        assert await here.guard.try_open()
        assert states(here.guard) == {"a": "ok", "b": "damaged"}
        rotated = rotate_key(here.guard.require_open(), "seal", LATER)
        here.guard.save(rotated.opened)
        assert states(here.guard) == {"a": "ok", "b": "damaged"}
        here.guard.health.forget()
        again = rotate_key(here.guard.require_open(), "seal", LATER)
        here.guard.save(again.opened)
        assert states(here.guard) == {"a": "waiting", "b": "damaged"}

    run(change())


def test_a_new_leaf_that_could_not_be_sealed_is_not_taken_for_well(tmp_path: Path) -> None:
    async def change() -> None:
        bare = (await unsealed(tmp_path)).guard.document
        (path,) = [path for path, found in tree.machine_leaves(bare.tree) if found.name == "b"]
        sealed = tree.AnchorLeaf("b", "failing", {"box": "AAAA"})
        whole = replace(bare, tree=tree.replace_leaf(bare.tree, path, sealed))
        health = Health("homelab", lambda event: None)
        health.written(whole, bare)
        assert health.findings == {}
        health.written(bare, whole)
        assert health.findings == {"b": Finding()}

    run(change())

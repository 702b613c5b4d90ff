"""The plan against a model of a server: wherever a person or a crash takes it, it finds its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.keyring import migrations
from kluis.keyring.migrations import Migration, Migrations
from kluis.servers.migration import plan, words
from kluis.servers.migration.plan import Decision, Place, Push
from kluis.servers.migration.standing import stands
from kluis.servers.migration.stanzas import AFTER, BACK, BEFORE, MIGRATE
from tests.servers.migration.model import SHAMIR, SHARES, Model, kind

NOW = "2026-11-22T06:00:00Z"
WAYS = [
    (SHAMIR, "transit:kluis"),
    ("transit:kluis", SHAMIR),
    ("static:old", "transit:kluis"),
    ("transit:old", "transit:kluis"),
]


@dataclass
class Driver:
    """kluis, with its record; ``crash`` ends it within the next gift of shares."""

    model: Model
    one: Migration
    crash: int | None = None
    over: Place | None = None
    told: str = ""

    def look(self) -> Decision:
        """Go on until there is nothing more to do by itself."""
        while True:
            seen = [self.model.seen()]
            self.one = stored(plan.observe(self.one, seen, NOW))
            decision = plan.decide(self.one, seen)
            if decision.push is None:
                break
            if not self._give(decision.push):
                return decision
        if decision.place in (Place.DOUBT, Place.GONE_BACK):
            self.over = decision.place
        return decision

    def _give(self, push: Push) -> bool:
        """Whether kluis lived through it. It may end before, between and right after shares."""
        if push.migrate:
            self.one = stored(plan.sent(self.one, push.address))
        crash, self.crash = self.crash, None
        self.model.give(SHARES if crash is None else min(crash, SHARES), migrate=push.migrate)
        if crash is None and push.migrate:
            self.one = stored(plan.taken(self.one, push.address))
        return crash is None

    def turn(self) -> None:
        """``--back``."""
        if self.over is None and not (self.one.back or self.one.restore):
            self.look()
            if self.over is None:
                self.one = stored(plan.turned(self.one, [self.model.seen()], NOW))


def stored(one: Migration) -> Migration:
    """What comes back from the disk."""
    data = migrations.to_bytes(Migrations().noted(one))
    found = migrations.from_bytes(data).of(one.server)
    assert found == one
    return found


def begun(source: str, target: str) -> Driver:
    one = Migration("it", kind(source), kind(target), "other", "homelab/it", NOW, folder="f")
    return Driver(Model(source, target), one)


def obey(driver: Driver, steps: int = 12) -> None:
    """Do as told, until it is over."""
    for _ in range(steps):
        decision = driver.look()
        if driver.over is not None:
            return
        found = stands(driver.one, [driver.model.seen()])
        said = words.following(driver.one, decision, found)
        again = bool(said.otherwise) and driver.told == said.file
        driver.told = said.otherwise if again else said.file
        if driver.told:
            driver.model.restart(driver.told)
    if steps > 1:
        raise AssertionError(f"it goes round in circles: {driver}")


def ended_well(driver: Driver) -> None:
    """What is called moved has moved, and no old seal is left; what is called back is back."""
    model, one = driver.model, driver.one
    if driver.over is Place.GONE_BACK or one.back:
        assert (model.stored, model.active) == (model.source, model.source)
    else:
        assert (model.stored, model.active) == (model.target, model.target)
    assert not model.sealed
    if model.active != SHAMIR:
        assert model.disabled == ""


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_who_does_as_told_arrives(source: str, target: str) -> None:
    driver = begun(source, target)
    obey(driver)
    assert driver.over is Place.DOUBT
    ended_well(driver)


@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize(("source", "target"), WAYS)
def test_it_can_go_back_at_every_step(source: str, target: str, steps: int) -> None:
    driver = begun(source, target)
    for file in (MIGRATE, "", AFTER, "")[:steps]:
        if file:
            driver.model.restart(file)
        elif driver.over is None:
            driver.look()
    proven = driver.over
    driver.turn()
    if proven is None and driver.over is None:
        obey(driver)
        assert driver.model.stored == source
    ended_well(driver)


ACTIONS = st.sampled_from([BEFORE, MIGRATE, AFTER, BACK, "look", "turn"])
CRASHES = st.integers(0, SHARES)


@given(st.sampled_from(WAYS), st.lists(ACTIONS, max_size=10), CRASHES, st.lists(ACTIONS))
@settings(max_examples=400)
def test_whatever_was_done_it_finds_its_way_and_says_nothing_that_is_not_so(
    way: tuple[str, str], before: Sequence[str], crash: int, after: Sequence[str]
) -> None:
    """A person restarts it with any file, at any time; kluis ends while it gives shares; from
    then on the person does as told, but may turn round."""
    driver = begun(*way)
    for what in before:
        act(driver, what)
    driver.crash = crash
    for what in after:
        act(driver, what if what in ("look", "turn") else "obey")
    if driver.over is None:
        obey(driver)
    ended_well(driver)


def act(driver: Driver, what: str) -> None:
    """One thing that happens, until it is over."""
    if driver.over is not None:
        return
    if what == "look":
        driver.look()
    elif what == "turn":
        driver.turn()
    elif what == "obey":
        obey(driver, 1)
    else:
        driver.model.restart(what)

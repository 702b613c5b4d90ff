"""Asking the anchors of a locked keyring: soon after they are back, never more than they bear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kluis.anchors.base import Pace
from kluis.engine.asking import keep_asking
from kluis.engine.opening import Opened, Opening
from kluis.engine.turns import Turns
from tests.engine.keyrings import PATIENCE_S, Site, make, until
from tests.engine.test_opening import run
from tests.support.failing_anchor import (
    Down,
    Flapping,
    Hanging,
    Refuses,
    Works,
    WrongAnswer,
)

NEVER = Pace(3600.0, 3600.0)
KNOCK_S = 0.002
RARE = 25
"""So many asks take minutes where each rest is longer than the last."""


@asynccontextmanager
async def asked(site: Site) -> AsyncIterator[Opening]:
    """While the anchors of the site are asked again and again."""
    opened: list[Opened] = []
    opening = Opening(site.document, opened.append)
    asking = asyncio.create_task(keep_asking(opening, site.anchors, Turns(), KNOCK_S))
    try:
        yield opening
        assert not asking.done() or asking.exception() is None
    finally:
        opening.cancel()
        asking.cancel()
        await asyncio.wait([asking])


def asks(site: Site, name: str) -> int:
    """How often it was asked to open, but for the proof when it was sealed."""
    return site.anchor(name).calls["open"] - 1


def test_one_that_is_back_is_asked_at_once_however_long_its_rest() -> None:
    async def come_back() -> None:
        site = await make("a")
        site.now(a=Down())
        site.anchor("a").pace = NEVER
        async with asked(site) as opening:
            await until(lambda: site.anchor("a").calls["knock"] > 5)
            assert asks(site, "a") == 1
            site.now(a=Works())
            await until(lambda: opening.opened is not None)

    run(come_back())


def test_one_that_is_there_and_refuses_is_asked_at_its_own_pace_only() -> None:
    async def refuse() -> None:
        site = await make("a or b")
        site.now(a=Refuses(), b=Down())
        site.anchor("a").pace = NEVER
        async with asked(site):
            await until(lambda: site.anchor("b").calls["knock"] > 20)
            assert asks(site, "a") == 1

    run(refuse())


def test_an_anchor_whose_knock_lies_is_asked_for_real_all_the_same() -> None:
    async def lie() -> None:
        site = await make("a")
        site.now(a=Down())

        async def nobody() -> None:
            raise AssertionError  # becomes Misconfigured: never a good knock

        site.anchor("a")._knock = nobody  # type: ignore[method-assign]
        async with asked(site) as opening:
            await until(lambda: asks(site, "a") > 1)
            site.now(a=Works())
            await until(lambda: opening.opened is not None)

    run(lie())


def test_one_that_hung_and_is_there_is_asked_once_more_at_once_and_then_at_its_pace() -> None:
    async def hang() -> None:
        site = await make("a or b")
        site.now(a=Down(), b=Down())
        site.anchor("a").pace = NEVER

        async def there() -> None:
            """It answers a knock all the while."""

        site.anchor("a")._knock = there  # type: ignore[method-assign]
        async with asked(site) as opening:
            await until(lambda: site.anchor("b").calls["knock"] > 20)
            assert asks(site, "a") == 2
            assert opening.opened is None

    run(hang())


def test_one_that_comes_back_and_still_refuses_has_its_full_rest_again() -> None:
    async def come_back() -> None:
        site = await make("a or b")
        site.now(a=Down(), b=Down())
        site.anchor("a").pace = NEVER
        async with asked(site):
            await until(lambda: site.anchor("a").calls["knock"] > 3)
            site.now(a=Refuses())
            await until(lambda: asks(site, "a") == 2)
            knocks = site.anchor("b").calls["knock"]
            await until(lambda: site.anchor("b").calls["knock"] > knocks + 20)
            assert asks(site, "a") == 2

    run(come_back())


def test_one_that_refuses_has_its_growing_rest_though_nobody_answers_a_knock() -> None:
    async def refuse() -> None:
        site = await make("a or b")
        site.now(a=Refuses(), b=Down())
        site.anchor("a").pace = Pace(0.001, 3600.0)

        async def nobody() -> None:
            raise AssertionError  # becomes Misconfigured

        site.anchor("a")._knock = nobody  # type: ignore[method-assign]
        async with asked(site):
            await until(lambda: site.anchor("b").calls["knock"] > 100)
            assert asks(site, "a") < RARE

    run(refuse())


def test_answers_that_contradict_each_other_are_asked_for_more_and_more_rarely() -> None:
    async def contradict() -> None:
        site = await make("a or b")
        site.now(a=WrongAnswer(), b=Down())
        site.anchor("a").pace = Pace(0.001, 3600.0)
        async with asked(site):
            await until(lambda: site.anchor("b").calls["knock"] > 100)
            assert asks(site, "a") < RARE

    run(contradict())


def test_one_that_hangs_holds_up_none_of_the_others() -> None:
    async def hang() -> None:
        site = await make("a or h")
        site.now(a=Flapping(*[Down()] * 3, Works()), h=Hanging())
        async with asked(site) as opening:
            await until(lambda: opening.opened is not None)

    run(hang())


def test_what_answered_is_not_asked_again_while_others_are_waited_for() -> None:
    async def wait() -> None:
        site = await make("a and b")
        site.now(b=Refuses())
        async with asked(site):
            await until(lambda: asks(site, "b") > 5)
            assert asks(site, "a") == 1

    run(wait())


def test_a_wrong_answer_is_asked_again_for_it_may_have_been_mended() -> None:
    async def mend() -> None:
        site = await make("a")
        site.now(a=Flapping(WrongAnswer(), WrongAnswer(), Works()))
        async with asked(site) as opening:
            await until(lambda: opening.opened is not None)

    run(mend())


def test_it_ends_when_there_is_nobody_to_ask() -> None:
    async def nobody() -> None:
        site = await make("a")
        opening = Opening(site.document)
        await keep_asking(opening, {}, Turns(), KNOCK_S)
        assert opening.failures["a"].state == "misconfigured"

    run(nobody())


def test_it_ends_when_somebody_else_opened_it() -> None:
    async def open_() -> None:
        site = await make("a or b")
        site.now(a=Refuses(), b=Down())
        opening = Opening(site.document)
        asking = asyncio.create_task(keep_asking(opening, site.anchors, Turns(), KNOCK_S))
        await until(lambda: asks(site, "a") > 1)
        opening.opened = site.opened
        async with asyncio.timeout(PATIENCE_S):
            await asking

    run(open_())

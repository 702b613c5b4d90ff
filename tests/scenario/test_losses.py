"""Six real anchors and paper: whatever is lost, what opens is what was predicted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pytest

from kluis import compose
from kluis.anchors.base import Anchor
from kluis.engine import change
from kluis.engine.change import Changed
from kluis.engine.guard import Guard
from kluis.engine.opening import Opening
from kluis.errors import AnchorError
from kluis.keyring import policy, trust
from kluis.store.directory import DirectoryStore
from tests.engine.keyrings import NOW, token_of
from tests.support.bao import wait_until
from tests.support.places import NAMES, Place, places, toml

RULE: Final = "(tpm and hsm) or 2 of (cloud, east, nas and west, family)"
FAMILY: Final = "family"
ORDER: Final = (FAMILY, "hsm", "cloud", "nas", "tpm", "east", "west")
"""What is cheap to lose comes first: it is lost most often."""
KEYRING: Final = """
[anchors.family]
kind = "people"
threshold = 2
shares = 3

[keyrings.homelab]
store = { kind = "directory", path = "state" }
opens = "RULE"
"""
IN_TIME_S: Final = 1.0
TRIES: Final = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Real:
    """A keyring on six real anchors and paper, and where they are."""

    places: Mapping[str, Place]
    anchors: Mapping[str, Anchor]
    made: Changed
    folder: Path


def run(call: Coroutine[None, None, T]) -> T:
    return asyncio.run(call)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as environment, places(folder, environment) as found:
        file = folder / "kluis.toml"
        file.write_text(toml(found, "timeout_s = 20") + KEYRING.replace("RULE", RULE))
        drawn = compose.blueprint(file)
        wanted = drawn.wanted["homelab"]
        made = run(change.make(wanted, drawn.anchors, token_of, NOW))
        assert not made.away
        yield Real(found, drawn.anchors, made, folder)


def losses(names: tuple[str, ...]) -> Iterator[tuple[str, frozenset[str]]]:
    """Every set of losses but none, each one toggle from the last: a Gray code."""
    lost: frozenset[str] = frozenset()
    for number in range(1, 2 ** len(names)):
        toggled = names[(number & -number).bit_length() - 1]
        lost ^= {toggled}
        yield toggled, lost


def test_the_losses_are_all_there_are() -> None:
    seen = {lost for _, lost in losses(ORDER)}
    assert len(seen) == 2**7 - 1
    assert set(ORDER) == {*NAMES, FAMILY} == set(policy.names(policy.parse(RULE)))


@pytest.mark.timeout(600)
def test_what_opens_after_any_loss_is_what_was_predicted(real: Real) -> None:
    rule, wrong = policy.parse(RULE), []
    assert opens(real, frozenset())
    for toggled, lost in losses(ORDER):
        if toggled != FAMILY:
            toggle(real, toggled, lost)
        predicted = trust.opens_with(rule, set(ORDER) - lost)
        if opens(real, lost) != predicted:
            wrong.append((sorted(lost), predicted))
    for name in lost - {FAMILY}:
        toggle(real, name, frozenset())
    assert wrong == []


def toggle(real: Real, name: str, lost: frozenset[str]) -> None:
    """Lose a place, or have it back: until its anchor sees that, as the service's knocks would."""
    if name in lost:
        real.places[name].lose()
        return
    real.places[name].restore()

    def back() -> bool:
        try:
            run(real.anchors[name].probe())
        except AnchorError:
            return False
        return True

    wait_until(back, f"{name} is back")


def opens(real: Real, lost: frozenset[str]) -> bool:
    """Whether the keyring opens by what is left; each lost anchor has to say why not."""
    opening = Opening(real.made.opened.document)
    opened = run(opening.ask(real.anchors))
    if opened is None and FAMILY not in lost:
        for share in real.made.paper[FAMILY][1:]:
            _, opened = opening.enter_share(share)
    for name, failure in opening.failures.items():
        assert name in lost, f"{name} is there, and says: {failure.seen} ({failure.means})"
        assert isinstance(failure, real.places[name].lost), (name, failure)
    if opened is None:
        assert set(opening.failures) == lost - {FAMILY}
        return False
    assert opened.root == real.made.opened.root
    return True


@pytest.mark.alone
@pytest.mark.parametrize("name", NAMES)
def test_it_is_open_within_a_second_after_the_one_that_it_needs_is_back(
    real: Real, name: str, tmp_path: Path
) -> None:
    async def wait(document_folder: Path) -> float:
        made = await alone(real, name)
        store = DirectoryStore(document_folder)
        store.save(made.opened.document, after=0)
        guard = Guard(made.opened.document, store, real.anchors)
        place = real.places[name]
        await asyncio.to_thread(place.lose)
        keeping = asyncio.create_task(guard.keep_open())
        try:
            async with asyncio.timeout(30):
                while guard.anchor_statuses()[name].state == "waiting":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not guard.is_open
            await asyncio.to_thread(place.restore)
            began = time.monotonic()
            assert await guard.wait_open(60)
            return time.monotonic() - began
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    took = []
    for number in range(TRIES):  # others use this machine too: the best of some
        took.append(run(wait(tmp_path / str(number))))
        if took[-1] < IN_TIME_S:
            return
    raise AssertionError(f"it took {took} s")


async def alone(real: Real, name: str) -> Changed:
    """A keyring that this anchor opens, or paper."""
    file = real.folder / "alone.toml"
    anchors = toml(real.places, "timeout_s = 20")
    file.write_text(anchors + KEYRING.replace("RULE", f"{name} or family"))
    wanted = compose.blueprint(file).wanted["homelab"]
    return await change.make(wanted, real.anchors, token_of, NOW)

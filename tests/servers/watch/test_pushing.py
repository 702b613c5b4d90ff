"""One attempt, against a model of a Shamir seal as it was measured, and with others at it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import ServerAnswered, ServerError, ServerHung, ServerUnreachable
from kluis.servers.client import SealStatus
from kluis.servers.watch.attempts import Outcome
from kluis.servers.watch.pushing import Attempt
from tests.servers.watch.scene import SHARES

STATUS = SealStatus("shamir", True, True, 3, 5, 0, "", "2.7.2", False, False, "raft", "", "")
JUNK = "ee" * 33
RIGHT = [share.hex() for share in SHARES]


@dataclass
class Seal:
    """Entered shares count once; at the threshold they fit, or all are forgotten.

    ``others`` act before each call that comes to the server, one step a call.
    """

    others: list[Callable[[Seal], None]] = field(default_factory=list)
    joins: bool = False  # at the threshold it says that it is sealed, and goes on
    threshold: int = 3
    entered: list[str] = field(default_factory=list)
    sealed: bool = True
    attempts: int = 0
    came: list[str] = field(default_factory=list)

    def _others(self) -> None:
        if self.others:
            self.others.pop(0)(self)

    async def seal_status(self) -> SealStatus:
        self._others()
        return replace(
            STATUS,
            sealed=self.sealed,
            threshold=self.threshold,
            progress=len(self.entered),
            nonce=f"nonce {self.attempts}" if self.entered else "",
        )

    async def unseal(self, share: str) -> None:
        self._others()
        self.came.append(share)
        self.enter(share)

    def enter(self, share: str) -> None:
        if not self.sealed or share in self.entered:
            return
        if not self.entered:
            self.attempts += 1
        self.entered.append(share)
        if len(self.entered) >= self.threshold:
            fits = set(self.entered) <= set(RIGHT)
            self.entered = []
            if not fits:
                raise ServerAnswered("no", JUNK, "", 400)
            self.sealed = self.joins

    def reset(self) -> None:
        self.entered = []


def enter(share: str) -> Callable[[Seal], None]:
    """What somebody else does; that the server refuses it is told to them."""

    def act(seal: Seal) -> None:
        with contextlib.suppress(ServerAnswered):
            seal.enter(share)

    return act


def attempt(
    seal: Seal, fits: Callable[[SealStatus], bool] = lambda status: status.sealed
) -> tuple[Outcome, list[str]]:
    made = Attempt(seal, SHARES, fits)
    outcome = asyncio.run(made.make())
    assert made.sent == len(seal.came)
    return outcome, seal.came


def nothing(seal: Seal) -> None:
    pass


@pytest.mark.parametrize(
    ("seal", "outcome", "sent"),
    [
        (Seal(), Outcome.UNSEALED, [0, 1, 2]),
        (Seal(threshold=1), Outcome.UNSEALED, [0]),
        (Seal(entered=[RIGHT[4]]), Outcome.UNSEALED, [0, 1]),
        (Seal(entered=[RIGHT[3], RIGHT[4]]), Outcome.UNSEALED, [0]),
        (Seal(entered=[RIGHT[0], RIGHT[1]]), Outcome.UNSEALED, [0, 1, 2]),
        (Seal(entered=[JUNK]), Outcome.DISTURBED, [0, 1]),
        (Seal(joins=True), Outcome.WORKING, [0, 1, 2]),
        (Seal([nothing, nothing, Seal.reset]), Outcome.DISTURBED, [0]),
        (Seal([nothing, nothing, nothing, nothing, Seal.reset]), Outcome.DISTURBED, [0, 1]),
        (Seal([nothing, nothing, enter(RIGHT[4])]), Outcome.UNSEALED, [0, 1]),
        (Seal([nothing, nothing, enter(JUNK)]), Outcome.DISTURBED, [0, 1]),
        (
            Seal([nothing, enter(RIGHT[3]), nothing, enter(RIGHT[4])]),
            Outcome.UNSEALED,
            [0, 1],
        ),
    ],
)
def test_an_attempt(seal: Seal, outcome: Outcome, sent: list[int]) -> None:
    assert attempt(seal) == (outcome, [RIGHT[number] for number in sent])


class Fails(Seal):
    """Fails at the n-th share, in one way."""

    error: ServerError = ServerError("x")
    at = 1

    async def unseal(self, share: str) -> None:
        if len(self.came) + 1 == self.at:
            self.came.append(share)
            raise self.error
        await super().unseal(share)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ServerAnswered("x", status=400), Outcome.REFUSED),
        (ServerAnswered("x", status=503), Outcome.FAILED),
        (ServerUnreachable("x"), Outcome.BROKEN),
        (ServerHung("x"), Outcome.WORKING),
        (ServerError("x"), Outcome.FAILED),
    ],
)
@pytest.mark.parametrize("at", [1, 3])
def test_an_attempt_ends_at_the_first_failure(
    error: ServerError, outcome: Outcome, at: int
) -> None:
    seal = Fails()
    seal.error, seal.at = error, at
    assert attempt(seal) == (outcome, RIGHT[:at])


class Closes(Seal):
    """Ends the connection before it tells its state."""

    async def seal_status(self) -> SealStatus:
        raise ServerUnreachable("x")


def test_a_connection_that_ends_before_the_first_share_counts_as_an_attempt() -> None:
    assert attempt(Closes()) == (Outcome.BROKEN, [])


def test_nothing_is_sent_to_a_node_that_does_not_fit_any_longer() -> None:
    assert attempt(Seal(), lambda status: False) == (Outcome.STOPPED, [])
    assert attempt(Seal(), lambda status: status.progress < 1) == (Outcome.DISTURBED, RIGHT[:1])


acts = st.sampled_from([nothing, Seal.reset, enter(JUNK), *map(enter, RIGHT)])


@given(st.lists(acts, max_size=12), st.integers(1, 5), st.booleans())
def test_whatever_others_do_never_more_than_the_threshold_goes_out(
    others: Sequence[Callable[[Seal], None]], threshold: int, joins: bool
) -> None:
    seal = Seal(list(others), joins, threshold)
    outcome, came = attempt(seal)
    assert came == RIGHT[: len(came)]
    assert len(came) <= threshold
    if outcome is Outcome.UNSEALED:
        assert not seal.sealed
    if not others:
        assert outcome is (Outcome.WORKING if joins else Outcome.UNSEALED)

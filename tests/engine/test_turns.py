"""When an anchor may be asked again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kluis.anchors.base import COSTLY, LOCAL, NETWORK, Pace
from kluis.engine.turns import Turns
from kluis.errors import Refused, Unreachable
from tests.support.failing_anchor import FailingAnchor

AWAY = Unreachable("connection refused")
NO = Refused("permission denied")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def anchor(pace: Pace) -> FailingAnchor:
    made = FailingAnchor("a")
    made.pace = pace
    return made


@given(first_s=st.floats(0.001, 10), last_s=st.floats(0.001, 100), failures=st.integers(1, 10**9))
def test_the_rest_doubles_up_to_its_bound(first_s: float, last_s: float, failures: int) -> None:
    rest_s = Pace(first_s, last_s).rest_s(failures)
    assert rest_s == min(last_s, first_s * 2.0 ** min(failures - 1, 16))


def test_the_paces_are_those_that_are_documented() -> None:
    assert [LOCAL.rest_s(n) for n in (1, 2, 9)] == [0.5, 0.5, 0.5]
    assert [NETWORK.rest_s(n) for n in (1, 2, 9)] == [5, 5, 5]
    assert [COSTLY.rest_s(n) for n in (1, 2, 3, 4, 5, 99)] == [5, 10, 20, 40, 60, 60]


def test_it_is_asked_at_once_the_first_time() -> None:
    assert Turns(Clock()).wait_s(anchor(NETWORK)) == 0


def test_after_it_was_asked_its_turn_comes_when_the_pace_says() -> None:
    clock = Clock()
    turns, one = Turns(clock), anchor(NETWORK)
    turns.asked(one)
    assert turns.wait_s(one) == 5
    clock.now_s += 4
    assert turns.wait_s(one) == 1
    clock.now_s += 2
    assert turns.wait_s(one) == 0


@given(failures=st.integers(1, 12))
def test_the_rest_of_a_costly_one_grows_and_jitter_only_lengthens_it(failures: int) -> None:
    turns, one = Turns(Clock()), anchor(COSTLY)
    for _ in range(failures):
        turns.failed(one, NO, was_there=True)
    assert COSTLY.rest_s(failures) <= turns.wait_s(one) <= COSTLY.rest_s(failures) * 1.25
    turns.answered(one)
    turns.failed(one, NO, was_there=True)
    assert turns.wait_s(one) <= COSTLY.rest_s(1) * 1.25


def test_the_rest_does_not_grow_while_it_was_not_even_there() -> None:
    turns, one = Turns(Clock()), anchor(COSTLY)
    for _ in range(9):
        turns.failed(one, AWAY, was_there=False)
    assert 5 <= turns.wait_s(one) <= 5 * 1.25


def test_an_anchor_that_says_how_soon_is_left_alone_until_then() -> None:
    turns, one = Turns(Clock()), anchor(LOCAL)
    turns.failed(one, Unreachable("throttled", retry_s=30.0), was_there=True)
    assert 30 <= turns.wait_s(one) <= 30 * 1.25

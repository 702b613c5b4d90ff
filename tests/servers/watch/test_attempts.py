"""How soon it is tried again: never at once and for ever, and at once after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.servers.watch.attempts import Attempts, Outcome

WORKING, REFUSED = Outcome.WORKING, Outcome.REFUSED
DISTURBED, FAILED, BROKEN = Outcome.DISTURBED, Outcome.FAILED, Outcome.BROKEN


@pytest.mark.parametrize(
    ("outcomes", "pause_s", "alarming"),
    [
        ([], 0.0, False),
        ([WORKING], 30.0, False),
        ([WORKING] * 2, 60.0, True),
        ([WORKING] * 9, 240.0, True),
        ([FAILED, FAILED, WORKING], 30.0, False),
        ([WORKING, FAILED], 60.0, True),  # an error while it is at work on them
        ([WORKING, BROKEN], 1.0, False),  # it may be over
        ([BROKEN] * 4, 4.0, True),
        ([REFUSED], 30.0, True),
        ([REFUSED] * 2, 60.0, True),
        ([DISTURBED], 0.5, False),
        ([DISTURBED] * 3, 2.0, False),
        ([DISTURBED] * 5, 8.0, True),
        ([DISTURBED] * 99, 30.0, True),
        ([DISTURBED, FAILED] * 3, 16.0, False),
        ([FAILED] * 4, 4.0, True),
        ([FAILED, Outcome.STOPPED], 0.5, False),
        ([REFUSED, Outcome.UNSEALED], 0.0, False),
    ],
)
def test_the_pause_grows(outcomes: list[Outcome], pause_s: float, alarming: bool) -> None:
    attempts = Attempts()
    for outcome in outcomes:
        attempts = attempts.after(outcome, 100.0)
    assert attempts.rests(100.0 + pause_s - 0.01) is (pause_s > 0.0)
    assert not attempts.rests(100.0 + pause_s)
    assert attempts.alarming is alarming


@pytest.mark.parametrize("outcome", [WORKING, REFUSED, DISTURBED, FAILED, BROKEN])
def test_a_restart_ends_the_rest_and_a_person_does(outcome: Outcome) -> None:
    once = Attempts().after(outcome, 100.0)
    assert not once.restarted().rests(100.0)
    often = once
    for _ in range(20):
        often = often.after(outcome, 100.0)
    assert often.restarted().rests(104.9)  # or a server that ends its connections is flooded
    assert not often.restarted().rests(105.0)
    assert not often.woken().rests(100.0)


def test_after_a_restart_an_error_is_one_again() -> None:
    attempts = Attempts().after(WORKING, 100.0).restarted().after(FAILED, 100.0)
    assert attempts.outcome is FAILED


def test_a_server_that_ends_at_each_unseal_is_told_at_last() -> None:
    attempts = Attempts()
    for _ in range(4):
        assert not attempts.alarming
        attempts = attempts.after(BROKEN, 100.0).restarted()
    assert attempts.alarming


@given(
    st.lists(
        st.sampled_from([WORKING, REFUSED, DISTURBED, FAILED, BROKEN, "restart"]), max_size=60
    ),
    st.floats(0.0, 0.2),
)
def test_whatever_happens_attempts_stay_rare(steps: list[Outcome | str], look_s: float) -> None:
    """A server that refuses, restarts or lies at every look gets at most so many attempts."""
    attempts, now_s, made = Attempts(), 0.0, 0
    for _ in range(600):  # looks in a minute, one each 0.1 s
        now_s += 0.1
        step = steps[made % len(steps)] if steps else FAILED
        if step == "restart":
            attempts, step = attempts.restarted(), FAILED
        if not attempts.rests(now_s):
            assert isinstance(step, Outcome)
            attempts, made = attempts.after(step, now_s), made + 1
    assert made <= 20

"""Whether shares belong together: told where there is one more than are needed."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import WrongShares
from kluis.keyring import shamir
from kluis.keyring.share_sets import needed, require_one_set


def made(threshold: int, shares: int, seed: int | None = None) -> list[bytes]:
    """Shares as a stock server makes them: y, then an x that was drawn by lot."""
    lots = random.Random(seed)
    at = lots.sample(range(1, 256), 255)
    secret = os.urandom(32) if seed is None else lots.randbytes(32)
    take = os.urandom if seed is None else lots.randbytes
    points = shamir.split(secret, threshold, 255, take)
    return [points[x] + bytes([x]) for x in at[:shares]]


@pytest.mark.parametrize(
    ("threshold", "shares", "told"),
    [(1, 2, 1), (2, 3, 2), (3, 5, 3), (3, 4, 3), (3, 3, None), (3, 2, None), (9, 255, 9)],
)
def test_the_threshold_shows_when_there_is_one_share_more(
    threshold: int, shares: int, told: int | None
) -> None:
    assert needed(made(threshold, shares)) == told


def test_one_share_alone_tells_nothing() -> None:
    assert needed([b"the key itself, or a share of it"]) is None
    assert require_one_set([b"the key itself, or a share of it"], 1) is False


def test_a_set_shows_that_it_is_one_only_with_more_than_are_needed() -> None:
    whole = made(3, 5)
    assert require_one_set(whole, 3) is True
    assert require_one_set(whole[:3], 3) is False
    assert require_one_set(whole[:2], 3) is False


@pytest.mark.parametrize("wrong", range(5))
def test_the_one_share_that_does_not_belong_is_named(wrong: int) -> None:
    whole = made(2, 5)
    whole[wrong] = bytes([whole[wrong][0] ^ 1]) + whole[wrong][1:]
    with pytest.raises(WrongShares) as error:
        require_one_set(whole, 2)
    assert error.value.seen == f"share {wrong + 1} does not belong to the others"


def test_where_it_can_not_be_named_all_are_to_be_checked() -> None:
    whole = made(3, 3, seed=1)
    numbers = {share[-1] for share in whole}
    whole.append(bytes(32) + bytes([min(set(range(1, 256)) - numbers)]))
    with pytest.raises(WrongShares) as error:
        require_one_set(whole, 3)
    assert error.value.seen == "these shares do not belong together"
    assert needed(whole) is None


def test_a_share_that_only_a_part_of_the_others_tell_is_found_without_a_threshold() -> None:
    whole = made(2, 3, seed=1)
    numbers = {share[-1] for share in whole}
    stranger = bytes(32) + bytes([min(set(range(1, 256)) - numbers)])
    with pytest.raises(WrongShares) as error:
        needed([*whole, stranger])
    assert error.value.seen == "share 4 does not belong to the others"


@pytest.mark.parametrize(
    "shares",
    [
        [b"a" * 32 + b"\x01", b"b" * 32 + b"\x01"],
        [b"a" * 32 + b"\x01", b"b" * 32 + b"\x00"],
        [b"a" * 32 + b"\x01", b"b" * 31 + b"\x02"],
    ],
    ids=["one number twice", "number 0", "another length"],
)
def test_what_can_never_be_of_one_set(shares: list[bytes]) -> None:
    for told in (needed, lambda given: require_one_set(given, 2)):
        with pytest.raises(WrongShares) as error:
            told(shares)
        assert error.value.means
        assert error.value.next_step


@given(st.lists(st.binary(min_size=2, max_size=4), min_size=1, max_size=8), st.integers(1, 8))
def test_any_bytes_end_in_an_answer_or_in_wrong_shares(shares: list[bytes], threshold: int) -> None:
    with contextlib.suppress(WrongShares):
        told = needed(shares)
        assert told is None or require_one_set(shares, told)
        require_one_set(shares, threshold)


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 2**32))
def test_whatever_the_order_a_whole_set_is_one(threshold: int, more: int, seed: int) -> None:
    whole = made(threshold, threshold + more, seed)
    random.Random(seed).shuffle(whole)
    assert needed(whole) == (threshold if more else None)
    assert require_one_set(whole, threshold) is bool(more)

"""Shamir over GF(2^8): any threshold gives the secret, and fewer say nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import SharesCantCombine
from kluis.keyring import crypto, shamir


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, int]:
    shares = draw(st.integers(1, 12))
    return draw(st.integers(1, shares)), shares


@given(st.binary(min_size=1, max_size=40), splits(), st.randoms())
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, split: tuple[int, int], pick: random.Random
) -> None:
    threshold, count = split
    shares = shamir.split(secret, threshold, count, crypto.random_bytes)
    assert sorted(shares) == list(range(1, count + 1))
    chosen = dict(pick.sample(sorted(shares.items()), threshold))
    assert shamir.interpolate(chosen) == secret
    assert shamir.interpolate(shares) == secret
    assert {x: shamir.interpolate(chosen, x) for x in shares} == shares


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_one_share_too_few_leaves_every_secret_as_likely(threshold: int) -> None:
    shares = shamir.split(b"s", threshold, 5, crypto.random_bytes)
    known = {x: shares[x] for x in list(shares)[: threshold - 1]}
    last = {shamir.interpolate({0: bytes([guess]), **known}, 5) for guess in range(256)}
    assert len(last) == 256  # each guess of the secret fits just one value of the missing share


@given(st.integers(0, 255), st.integers(0, 255), st.integers(1, 255))
def test_the_field_multiplies_and_divides_as_aes_does(a: int, b: int, c: int) -> None:
    product, x, y = 0, a, b
    while y:
        product ^= x if y & 1 else 0
        x = (x << 1) ^ (0x11B if x & 0x80 else 0)
        y >>= 1
    assert shamir._multiply(a, b) == product
    assert shamir._divide(shamir._multiply(a, c), c) == a


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {1: b"a", 2: b"bc"},
        {256: b"a"},
        {-1: b"a"},
    ],
)
def test_shares_that_cant_be_of_one_secret_are_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(SharesCantCombine):
        shamir.interpolate(shares)


@pytest.mark.parametrize(("threshold", "shares"), [(0, 1), (2, 1), (2, 256), (-1, 3)])
def test_a_threshold_that_cant_be_is_refused(threshold: int, shares: int) -> None:
    with pytest.raises(ValueError, match="can't be"):
        shamir.split(b"s", threshold, shares, crypto.random_bytes)


def test_the_highest_x_works() -> None:
    shares = shamir.split(b"secret", 3, 255, crypto.random_bytes)
    assert shamir.interpolate({x: shares[x] for x in (1, 254, 255)}) == b"secret"


def test_a_wrong_share_gives_another_secret_and_no_error() -> None:
    shares = shamir.split(b"secret", 2, 2, crypto.random_bytes)
    shares[1] = bytes([shares[1][0] ^ 1]) + shares[1][1:]
    assert shamir.interpolate(shares) != b"secret"

"""What is kept for a server: one form, read strictly, and nothing of it prints."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import DocumentError
from kluis.keyring import custody
from kluis.keyring.custody import Custody, Shares
from kluis.keyring.strict import canonical

SHARES = st.lists(st.binary(min_size=16, max_size=40), max_size=6)
WORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)


@st.composite
def share_sets(draw: st.DrawFn) -> Shares:
    shares = tuple(draw(SHARES))
    return Shares(draw(st.integers(min(1, len(shares)), len(shares))), shares)


@st.composite
def custodies(draw: st.DrawFn) -> Custody:
    present = draw(share_sets())
    return Custody(
        purpose=draw(st.sampled_from(["unseal", "recovery"])),
        threshold=present.threshold,
        shares=present.shares,
        cluster_id=draw(WORDS),
        root_token=draw(WORDS),
        step=draw(st.sampled_from(["", "begun", "kept", "rekeying", "rotating"])),
        next=draw(st.none() | share_sets()),
        node=draw(WORDS),
        attempt=draw(WORDS),
    )


@given(custodies())
def test_what_is_written_is_read_again(kept: Custody) -> None:
    assert custody.from_bytes(custody.to_bytes(kept)) == kept


def test_nothing_of_it_prints() -> None:
    share, other = bytes(range(33)), bytes(range(100, 133))
    kept = Custody("unseal", 1, (share,), root_token="s.secret", next=Shares(1, (other,)))
    for secret in (share.hex(), other.hex(), "s.secret", repr(share), repr(other)):
        assert secret not in repr(kept) + repr(kept.next) + repr(kept.ways())


@given(st.binary(max_size=400))
def test_other_bytes_are_refused_each_with_its_error(data: bytes) -> None:
    with pytest.raises(DocumentError):
        custody.from_bytes(data)


@given(custodies(), st.data())
def test_a_member_that_is_changed_is_read_or_refused(kept: Custody, data: st.DataObject) -> None:
    said = json.loads(custody.to_bytes(kept))
    name = data.draw(st.sampled_from(sorted(said)))
    odd = (
        st.none()
        | st.integers(-9, 9)
        | st.text(max_size=5)
        | st.lists(st.integers(-9, 9), max_size=2)
    )
    said[name] = data.draw(odd)
    with contextlib.suppress(DocumentError):
        custody.from_bytes(canonical(said))


def test_in_a_rekey_there_are_two_sets_and_before_the_init_none() -> None:
    old, new = (bytes(33),), (bytes([1] * 33), bytes([2] * 33))
    kept = Custody("unseal", 1, old, step="rekeying", next=Shares(2, new))
    assert [one.shares for one in kept.ways()] == [old, new]
    assert kept.some() == (old[0].hex(),)
    assert kept.ways()[1].some() == (new[0].hex(), new[1].hex())
    assert Custody("unseal", 0, (), step="begun").ways() == ()

"""Shares as people have them, and the limits of what is kept of them."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import DocumentError, UsageError
from kluis.keyring import custody
from kluis.keyring.custody import MAX_SHARES, Custody, Shares, parse_shares
from kluis.keyring.keys import MAX_MATERIAL_BYTES
from tests.keyring.test_fuzz import PIECES

FIVE = tuple(bytes([n]) * 33 for n in range(1, 6))


def test_shares_are_read_in_hex_and_in_base64_among_empty_lines() -> None:
    one, two, three = FIVE[:3]
    lines = [f"  {one.hex()}\n", "", two.hex().upper(), base64.b64encode(three).decode() + "\r\n"]
    assert parse_shares(lines) == (one, two, three)


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ([], "there is no share"),
        (["", "  "], "there is no share"),
        ([FIVE[0].hex(), "no share"], "line 2 is not a share"),
        (["", FIVE[0].hex()[:-1]], "line 2 is not a share"),
        (["ab" * 15], "line 1 is not a share"),
        (["ab" * 257], "line 1 is not a share"),
        (["é" * 66], "line 1 is not a share"),
        ([FIVE[0].hex(), "", FIVE[0].hex()], "line 3 is a share that stands above already"),
        ([FIVE[0].hex(), "ab" * 32], "these are not the shares of one key"),
        ([f"{n:066x}" for n in range(256)], "these are not the shares of one key"),
    ],
)
def test_what_is_no_share_is_named_by_its_line_and_never_shown(lines: list[str], seen: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_shares(lines)
    assert error.value.seen == seen
    said = f"{error.value.seen} {error.value.means} {error.value.next_step}"
    assert not any(line.strip() and line.strip() in said for line in lines)


TEXTS = st.text(max_size=80) | st.binary(min_size=14, max_size=40).map(bytes.hex)
TEXTS |= st.binary(min_size=14, max_size=40).map(lambda data: base64.b64encode(data).decode())


@given(st.lists(TEXTS, max_size=6))
def test_any_lines_end_in_shares_or_in_an_error_that_shows_none(lines: list[str]) -> None:
    try:
        shares = parse_shares(lines)
    except UsageError as error:
        assert all(len(line) < 12 or line not in error.seen for line in lines)  # noqa: PT017
    else:
        assert len(shares) == len({*shares}) == sum(bool(line.strip()) for line in lines)


def test_the_most_shares_that_a_server_makes_fit_into_a_key() -> None:
    most = tuple(bytes([n]) * 33 for n in range(1, MAX_SHARES + 1))
    kept = Custody("unseal", MAX_SHARES, most, next=Shares(MAX_SHARES, most))
    data = custody.to_bytes(kept)
    assert len(data) <= MAX_MATERIAL_BYTES
    assert custody.from_bytes(data) == kept


def test_a_share_larger_than_any_is_refused_and_the_error_says_whose_it_is() -> None:
    whole = json.loads(custody.to_bytes(Custody("unseal", 3, FIVE)))
    whole["shares"][0] = base64.b64encode(bytes(257)).decode()
    data = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(DocumentError) as error:
        custody.require(data, "homelab/old-vault")
    assert error.value.seen.startswith("homelab/old-vault holds no shares: ")
    assert error.value.next_step.endswith("kluis key import homelab/old-vault --shares -")


@given(st.data())
@settings(max_examples=300)
def test_changed_bytes_give_nothing_but_document_errors(data: st.DataObject) -> None:
    seed = custody.to_bytes(
        Custody("recovery", 2, FIVE[:2], "c-1", "s.token", "kept", Shares(2, FIVE[2:]), "n", "a")
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        cut = data.draw(st.integers(0, 8))
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        seed = seed[:at] + piece + seed[at + cut :]
    with contextlib.suppress(DocumentError):
        assert custody.to_bytes(custody.from_bytes(seed)) == seed

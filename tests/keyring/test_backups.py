"""The record of known backups: what goes in comes out, and nothing else does."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import DocumentError, TooLarge, UsageError
from kluis.keyring import backups
from kluis.keyring.backups import MAX_BACKUPS, MAX_BACKUPS_BYTES, Backup, Backups
from tests.keyring.strategies import NOW
from tests.keyring.test_fuzz import JUNK, PIECES

TWO = Backups().noted("restic 2026-11-20", "unseal", 1, NOW).noted("bletchley", "other", 2, NOW)


def test_what_is_written_is_read_back() -> None:
    for record in (Backups(), TWO, TWO.forgotten(1)):
        assert backups.from_bytes(backups.to_bytes(record)) == record


def test_a_number_is_given_once() -> None:
    again = TWO.forgotten(2).noted("a third", "unseal", 3, NOW)
    assert [backup.number for backup in again.known] == [1, 3]


def test_the_backups_of_a_key_are_told_from_others() -> None:
    assert TWO.of("unseal") == (Backup(1, "restic 2026-11-20", "unseal", 1, NOW),)
    assert TWO.of("nothing") == ()


def test_what_was_never_noted_can_not_be_forgotten() -> None:
    with pytest.raises(UsageError):
        TWO.forgotten(3)


def test_the_fullest_record_can_be_read_back_and_takes_no_more() -> None:
    full = Backups()
    for _ in range(MAX_BACKUPS):
        full = full.noted("x" * 96, "y" * 63, 1024, NOW)
    data = backups.to_bytes(full)
    assert len(data) < MAX_BACKUPS_BYTES
    assert backups.from_bytes(data) == full
    with pytest.raises(TooLarge):
        full.noted("one more", "unseal", 1, NOW)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("number", 0),
        ("number", 3),  # not given yet
        ("label", ""),
        ("label", "[/]"),
        ("label", "a\x1b[2J"),
        ("label", "x" * 97),
        ("key", "../unseal"),
        ("version", 0),
        ("version", 1025),
        ("noted", "yesterday"),
    ],
)
def test_a_member_out_of_range_is_refused(member: str, value: object) -> None:
    whole = json.loads(backups.to_bytes(TWO))
    whole["backups"][1][member] = value
    data = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(DocumentError) as error:
        backups.from_bytes(data)
    assert "note the backups anew" in error.value.next_step


@given(st.data())
@settings(max_examples=300)
def test_a_changed_record_gives_nothing_but_document_errors(data: st.DataObject) -> None:
    seed = backups.to_bytes(TWO)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        cut = data.draw(st.integers(0, 8))
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        seed = seed[:at] + piece + seed[at + cut :]
    _only_document_errors(seed)


@given(st.sampled_from(["kluis", "following", "backups"]), JUNK)
def test_another_member_gives_nothing_but_document_errors(member: str, junk: object) -> None:
    whole = json.loads(backups.to_bytes(TWO)) | {member: junk}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    _only_document_errors(text.encode("utf-8", "surrogatepass"))


def _only_document_errors(data: bytes) -> None:
    with contextlib.suppress(DocumentError):
        assert backups.to_bytes(backups.from_bytes(data)) == data

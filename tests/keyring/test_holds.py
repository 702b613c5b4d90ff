"""The record of held servers: what goes in comes out, and nothing else does."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import DocumentError, TooLarge
from kluis.keyring import holds
from kluis.keyring.holds import MAX_HOLDS, MAX_HOLDS_BYTES, MAX_TIME_S, Held, Holds
from tests.keyring.test_fuzz import JUNK, PIECES

NOW_S = 1_767_225_600
TWO = Holds().held("old-vault", NOW_S, None).held("bletchley", NOW_S, NOW_S + 60)


def test_what_is_written_is_read_back() -> None:
    for record in (Holds(), TWO, TWO.released("old-vault")):
        assert holds.from_bytes(holds.to_bytes(record)) == record


def test_a_hold_ends_by_its_time_or_by_release() -> None:
    assert not TWO.servers["bletchley"].over(NOW_S + 59.9)
    assert TWO.servers["bletchley"].over(NOW_S + 60)
    assert not TWO.servers["old-vault"].over(MAX_TIME_S)
    assert TWO.released("old-vault").servers == {"bletchley": Held(NOW_S, NOW_S + 60)}
    assert TWO.released("another") == TWO


def test_another_end_keeps_the_beginning_and_what_is_over_goes() -> None:
    later = TWO.held("old-vault", NOW_S + 70, NOW_S + 90)
    assert later.servers == {"old-vault": Held(NOW_S, NOW_S + 90)}
    again = later.held("old-vault", NOW_S + 91, None)
    assert again.servers == {"old-vault": Held(NOW_S + 91)}


def test_the_fullest_record_can_be_read_back_and_takes_no_more() -> None:
    full = Holds({f"{'x' * 59}{n:04}": Held(MAX_TIME_S, MAX_TIME_S) for n in range(MAX_HOLDS)})
    data = holds.to_bytes(full)
    assert len(data) < MAX_HOLDS_BYTES
    assert holds.from_bytes(data) == full
    with pytest.raises(TooLarge):
        full.held("one-more", NOW_S, None)
    assert len(full.held("x" * 59 + "0000", NOW_S, None).servers) == MAX_HOLDS


@pytest.mark.parametrize(
    ("server", "member", "value"),
    [
        ("old-vault", "since_s", -1),
        ("old-vault", "since_s", MAX_TIME_S + 1),
        ("old-vault", "since_s", True),
        ("old-vault", "until_s", None),
        ("old-vault", "until_s", "0"),
        ("old-vault", "more", 1),
        ("Old-Vault", "since_s", 1),
        ("[/]", "since_s", 1),
        ("a\x1b[2J", "since_s", 1),
        ("x" * 65, "since_s", 1),
    ],
)
def test_a_member_out_of_range_is_refused(server: str, member: str, value: object) -> None:
    held = {"since_s": 1, "until_s": 0, member: value}
    whole = {"kluis": "holds/1", "servers": {server: held}}
    data = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(DocumentError) as error:
        holds.from_bytes(data)
    assert "until it is mended all are held" in error.value.means
    assert "hold anew" in error.value.next_step


@given(st.data())
@settings(max_examples=300)
def test_a_changed_record_gives_nothing_but_document_errors(data: st.DataObject) -> None:
    seed = holds.to_bytes(TWO)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        cut = data.draw(st.integers(0, 8))
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        seed = seed[:at] + piece + seed[at + cut :]
    _only_document_errors(seed)


@given(st.sampled_from(["kluis", "servers"]), JUNK)
def test_another_member_gives_nothing_but_document_errors(member: str, junk: object) -> None:
    whole = json.loads(holds.to_bytes(TWO)) | {member: junk}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    _only_document_errors(text.encode("utf-8", "surrogatepass"))


def _only_document_errors(data: bytes) -> None:
    with contextlib.suppress(DocumentError):
        assert holds.to_bytes(holds.from_bytes(data)) == data

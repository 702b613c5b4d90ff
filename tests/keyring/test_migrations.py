"""The record of migrations: what goes in comes out, and nothing else does."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import DocumentError, TooLarge
from kluis.keyring import migrations
from kluis.keyring.migrations import (
    MAX_MIGRATIONS,
    MAX_MIGRATIONS_BYTES,
    MAX_NODES,
    Migration,
    Migrations,
    Progress,
)
from tests.keyring.strategies import NOW
from tests.keyring.test_fuzz import JUNK, PIECES

NODES = tuple(sorted(f"https://10.0.0.{number}:8200" for number in range(3)))
PROGRESS = Progress(
    sending=NODES[0],
    carried=NODES,
    away=NODES[:1],
    returned=NODES[1:],
    nodes=NODES,
    moved=NOW,
    active_time="2026-11-22T06:17:46.76967644Z",
    unsealed="2026-11-22T06:17:46.769Z",
)
FIRST = Migration(
    *("bletchley", "shamir", "transit", "facade", "homelab/of-it", NOW),
    key="homelab/bletchley",
    client="bletchley",
    snapshot="/var/backups/before it.snap",
    folder="/srv/ö",
    progress=PROGRESS,
)
SECOND = Migration("other", "static", "shamir", "shamir", "homelab/of-it", NOW, back=True)
TWO = Migrations().noted(FIRST).noted(SECOND)


def test_what_is_written_is_read_back() -> None:
    for record in (Migrations(), TWO, TWO.forgotten("other")):
        assert migrations.from_bytes(migrations.to_bytes(record)) == record


def test_a_server_has_one_migration_at_a_time() -> None:
    again = Migration("other", "shamir", "static", "static", "homelab/of-it", NOW)
    assert TWO.noted(again).of("other") == again
    assert TWO.forgotten("other").of("other") is None
    assert TWO.forgotten("nobody") == TWO


def test_the_fullest_record_can_be_read_back_and_takes_no_more() -> None:
    nodes = tuple(sorted(f"https://{number:02}.{'x' * 20}:8200" for number in range(MAX_NODES)))
    full = Migrations()
    for number in range(64):
        progress = Progress(carried=nodes, away=nodes, returned=nodes, nodes=nodes)
        one = Migration(f"s{number}", "a", "b", "other", "h/s", NOW, progress=progress)
        full = full.noted(one)
    data = migrations.to_bytes(full)
    assert len(data) < MAX_MIGRATIONS_BYTES
    assert migrations.from_bytes(data) == full
    many = {f"s{n}": SECOND for n in range(MAX_MIGRATIONS)}
    with pytest.raises(TooLarge):
        Migrations(many).noted(FIRST)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("source", "Shamir"),
        ("to", "nowhere"),
        ("began", ""),
        ("repoint", 1),
        ("folder", "a\nb"),
        ("moved", "yesterday"),
        ("active_time", "a b"),
        ("carried", ["b", "a"]),
        ("nodes", ["a"] * 2),
        ("nodes", [""]),
        ("away", [f"{number:03}" for number in range(MAX_NODES + 1)]),
    ],
)
def test_a_member_out_of_range_is_refused(member: str, value: object) -> None:
    whole = json.loads(migrations.to_bytes(TWO))
    first = whole["servers"]["bletchley"]
    (first if member in first else first["progress"])[member] = value
    data = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(DocumentError) as error:
        migrations.from_bytes(data)
    assert "restore the file" in error.value.next_step


@given(st.data())
@settings(max_examples=200)
def test_a_changed_record_gives_nothing_but_document_errors(data: st.DataObject) -> None:
    seed = migrations.to_bytes(TWO)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        cut = data.draw(st.integers(0, 8))
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        seed = seed[:at] + piece + seed[at + cut :]
    _only_document_errors(seed)


@given(st.sampled_from(["kluis", "servers"]), JUNK)
def test_another_member_gives_nothing_but_document_errors(member: str, junk: object) -> None:
    whole = json.loads(migrations.to_bytes(TWO)) | {member: junk}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    _only_document_errors(text.encode("utf-8", "surrogatepass"))


def _only_document_errors(data: bytes) -> None:
    with contextlib.suppress(DocumentError):
        assert migrations.to_bytes(migrations.from_bytes(data)) == data


def test_whether_the_type_tells_which_seal_is_in_use() -> None:
    assert not FIRST.same
    assert replace(FIRST, source=FIRST.target).same

"""Every parser of outside bytes in the keyring: changed documents, and limits that hold."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import DocumentError
from kluis.keyring import document
from tests.vectors import generate

SEEDS = sorted(
    json.loads(text)["document"].encode()
    for path, text in generate.on_disk().items()
    if path.parent.name == "valid"
)
PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\xff", b"\0",
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"1.5", b"9" * 40, b"9" * 5000,
    b'"epoch":2', b'"any"', b"[" * 70, b'{"a":' * 70, b"\xed\xa0\x80", "é".encode(),
    b"AAAA", b"=", b" ", b"\n",
]  # fmt: skip


def only_document_errors(data: bytes) -> None:
    try:
        read = document.from_bytes(data)
    except DocumentError as error:
        for line in (error.seen, error.means, error.next_step):
            assert line.isprintable(), line
            assert len(line) < 600
    else:
        assert document.to_bytes(read) == data


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=400)
def test_a_changed_document_gives_nothing_but_document_errors(
    seed: bytes, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        cut = data.draw(st.integers(0, 8))
        piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        seed = seed[:at] + piece + seed[at + cut :]
    only_document_errors(seed)


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=400)
def test_a_document_with_another_member_gives_nothing_but_document_errors(
    seed: bytes, data: st.DataObject
) -> None:
    whole = json.loads(seed)
    place = whole
    while True:
        steps = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not steps:
            break
        step = data.draw(st.sampled_from(steps))
        if isinstance(place[step], dict | list) and place[step] and data.draw(st.booleans()):
            place = place[step]
            continue
        place[step] = data.draw(JUNK)
        break
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    only_document_errors(text.encode("utf-8", "surrogatepass"))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53 - 1, 2**53, 2**64, 10**4000, 0.5, float("inf"), float("nan")]),
    st.text(max_size=12),
    st.sampled_from(["\ud800", "\0", "a" * 5000, "\x1b[2J", "A" * 43 + "=", "é"]),
    st.lists(st.none(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)


@given(st.binary(max_size=400))
def test_random_bytes_are_no_document(data: bytes) -> None:
    with pytest.raises(DocumentError):
        document.from_bytes(data)


def _full_of(piece: bytes, start: bytes = b"[", end: bytes = b"]") -> bytes:
    count = (document.MAX_DOCUMENT_BYTES - len(start) - len(end) - len(piece)) // (len(piece) + 1)
    return start + (piece + b",") * count + piece + end


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 10_000_000,
        b"[" * document.MAX_DOCUMENT_BYTES,
        b'{"":' * (document.MAX_DOCUMENT_BYTES // 4),
        b"9" * document.MAX_DOCUMENT_BYTES,
        b'"' + b"\\u0000" * (document.MAX_DOCUMENT_BYTES // 6 - 1) + b'"',
        b'"' + b"\\" * (document.MAX_DOCUMENT_BYTES - 2) + b'"',
        _full_of(b"[]"),
        _full_of(b"{}"),
        _full_of(b'{"a":[]}'),
        _full_of(b"0"),
        _full_of(b'""'),
        _full_of(b'"x":{}', b"{", b"}"),
    ],
    ids=[
        "10MB",
        "lists",
        "objects",
        "digits",
        "nul",
        "backslashes",
        "flat-lists",
        "flat-objects",
        "mixed",
        "zeros",
        "texts",
        "same-name",
    ],
)
def test_the_most_costly_bytes_are_refused_within_seconds(data: bytes) -> None:
    started = time.thread_time()
    with pytest.raises(DocumentError):
        document.from_bytes(data)
    assert time.thread_time() - started < 30.0

"""Strict JSON: one form only, and bounded work for whatever comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import (
    DocumentError,
    DuplicateName,
    MissingField,
    NotCanonical,
    NotJson,
    TooLarge,
    UnknownField,
    WrongBase64,
    WrongType,
)
from kluis.keyring import strict
from kluis.keyring.strict import JSON, Fields

LIMIT = 1024 * 1024

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-strict.MAX_INTEGER, strict.MAX_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(values)
def test_canonical_bytes_read_back_as_the_same_value(value: JSON) -> None:
    data = strict.canonical(value)
    assert strict.read_canonical(data, LIMIT) == value
    assert strict.canonical(strict.read_canonical(data, LIMIT)) == data


@given(values)
def test_any_other_bytes_of_the_same_value_are_refused(value: JSON) -> None:
    other = json.dumps(value, indent=1, ensure_ascii=True).encode()
    if other != strict.canonical(value):
        with pytest.raises((NotCanonical, NotJson)):  # NotJson: escaped UTF-16 pairs
            strict.read_canonical(other, LIMIT)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_random_bytes_give_nothing_but_document_errors(data: bytes) -> None:
    refused = False
    try:
        value = strict.read_canonical(data, LIMIT)
    except DocumentError:
        refused = True
    assert refused or strict.canonical(value) == data


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotJson),
        (b"{", NotJson),
        (b"\xff", NotJson),
        (b'"\xed\xa0\x80"', NotJson),  # half a pair, in the UTF-8 of those who don't know better
        (b"\xef\xbb\xbf{}", NotJson),
        (b'"\\ud800"', NotJson),
        (b'{"\\uDFFF":1}', NotJson),
        (b'"\\\\\\ud800"', NotJson),
        (b'"\\ud83d\\ude00"', NotJson),
        (b'"\0"', NotJson),
        (b'"a"\0', NotJson),
        (b"NaN", WrongType),
        (b"[-Infinity]", WrongType),
        (b"1e999", WrongType),
        (b"1.0", WrongType),
        (b"9007199254740992", WrongType),
        (b"-9007199254740992", WrongType),
        (b"1" * 5000, WrongType),
        (b"1" * 900_000, WrongType),
        (b"-0", NotCanonical),
        (b"01", NotJson),
        (b" 1", NotCanonical),
        (b'{"b":1,"a":1}', NotCanonical),
        (b'{"a":1,"a":1}', DuplicateName),
        (b'[[{"x":{"a":1,"\\u0061":1}}]]', DuplicateName),
        (b"[" * 65 + b"]" * 65, TooLarge),
        (b'{"a":' * 65 + b"1" + b"}" * 65, TooLarge),
        (b"[" * 500_000, TooLarge),
        (b"[" * 985 + b"]" * 985, TooLarge),
        (b'{"a":' * 200_000, TooLarge),
        (b'"' + b"x" * LIMIT + b'"', TooLarge),
    ],
)
def test_what_is_not_the_one_form_is_refused_by_its_own_class(
    data: bytes, error: type[DocumentError]
) -> None:
    with pytest.raises(DocumentError) as raised:
        strict.read_canonical(data, LIMIT)
    assert type(raised.value) is error


def test_ten_megabytes_are_refused_before_they_are_read() -> None:
    with pytest.raises(TooLarge):
        strict.read_canonical(b"\xff" * 10_000_000, LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 64 + b"]" * 64,
        b"[" * 64 + b"1" + b"]" * 64,
        b'"\\\\ud800"',  # a backslash, and letters
        b'"\\u0000"',
        b"9007199254740991",
        b"-9007199254740991",
        '"é😀\u2028"'.encode(),
    ],
)
def test_what_is_just_within_the_limits_is_read(data: bytes) -> None:
    assert strict.canonical(strict.read_canonical(data, LIMIT)) == data


def test_text_is_read_as_bytes_are() -> None:
    assert strict.read_json('{"a": [1, null]}') == {"a": [1, None]}
    with pytest.raises(NotJson):
        strict.read_json('"\ud800"')


FIELDS: dict[str, JSON] = {
    "text": "abc",
    "number": 3,
    "yes": True,
    "none": None,
    "list": [1, 2],
    "object": {"a": 1},
    "bytes": "AAEC",
}


def test_members_are_taken_with_their_types() -> None:
    fields = Fields(FIELDS, "")
    assert fields.has("text")
    assert fields.text("text", "[a-c]+") == "abc"
    assert not fields.has("text")
    assert fields.integer("number", 3, 3) == 3
    assert fields.take("yes") is True
    assert fields.optional_text("none", ".*") is None
    assert fields.items("list", 2) == [1, 2]
    assert fields.members("object", "[a-z]", 1) == [("a", 1)]
    assert fields.base64("bytes", 3) == b"\0\1\2"
    fields.done()
    assert Fields(FIELDS, "").optional_text("text", "abc") == "abc"
    assert Fields(FIELDS, "").base64("bytes", limit_bytes=3) == b"\0\1\2"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda f: f.text("gone", "a"), MissingField),
        (lambda f: f.text("number", "3"), WrongType),
        (lambda f: f.text("text", "ab"), WrongType),
        (lambda f: f.text("text", "abc", 2), TooLarge),
        (lambda f: f.optional_text("yes", ".*"), WrongType),
        (lambda f: f.integer("yes", 0), WrongType),
        (lambda f: f.integer("text", 0), WrongType),
        (lambda f: f.integer("number", 4), WrongType),
        (lambda f: f.integer("number", 0, 2), WrongType),
        (lambda f: f.integer("none", 0), WrongType),
        (lambda f: f.items("object", 9), WrongType),
        (lambda f: f.items("list", 1), TooLarge),
        (lambda f: f.members("list", "a", 9), WrongType),
        (lambda f: f.members("object", "b", 9), WrongType),
        (lambda f: f.members("object", "a", 0), TooLarge),
        (lambda f: f.base64("number"), WrongType),
        (lambda f: f.base64("bytes", 2), WrongBase64),
        (lambda f: f.base64("bytes", None, 2), TooLarge),
        (lambda f: f.base64("text"), WrongBase64),
        (lambda f: f.done(), UnknownField),
        (lambda f: Fields(f.take("list"), "x"), WrongType),
    ],
)
def test_a_member_of_another_kind_is_refused_and_its_value_not_shown(
    call: object, error: type[DocumentError]
) -> None:
    assert callable(call)
    with pytest.raises(DocumentError) as raised:
        call(Fields(FIELDS, "here"))
    assert type(raised.value) is error
    assert "abc" not in f"{raised.value.seen}{raised.value.means}{raised.value.next_step}"


def test_names_from_outside_reach_the_terminal_escaped() -> None:
    with pytest.raises(UnknownField) as unknown:
        Fields({"\x1b[2J\n\u202e": 1}, "").done()
    assert unknown.value.seen.isprintable()
    with pytest.raises(DuplicateName) as twice:
        strict.read_json('{"\\u001b":1,"\\u001b":1}')
    assert twice.value.seen.isprintable()

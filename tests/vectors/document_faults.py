"""Documents with one fault each in their bytes or their members, found while reading."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.vectors.editing import GONE, GOOD, Case, case, edited, raw, refused
from tests.vectors.scheme import JSON, Object, canonical


def vectors() -> Iterator[tuple[str, Object]]:
    """Each by the name of its file."""
    yield from refused([*_bytes(), *_members()])
    yield (
        "document/refused/over-4-mib",
        {
            "about": "4 MiB and one byte: append spaces up to pad_to_bytes",
            "kind": "document",
            "error": "TooLarge",
            "stage": "read",
            "document": canonical(GOOD).decode(),
            "pad_to_bytes": 4 * 1024 * 1024 + 1,
        },
    )


def _bytes() -> Iterator[Case]:
    text = canonical(GOOD)
    yield "nothing", "NotJson", "no bytes at all", b""
    yield "cut-short", "NotJson", "the last byte is lost", text[:-1]
    yield (
        "not-utf-8",
        "NotJson",
        "a byte that UTF-8 does not have",
        text.replace(b"homelab", b"h\xff"),
    )
    yield "byte-order-mark", "NotJson", "a byte order mark in front", b"\xef\xbb\xbf" + text
    yield "two-documents", "NotJson", "a second document after the first", text + text
    yield "newline-at-the-end", "NotCanonical", "a newline at the end", text + b"\n"
    yield "indented", "NotCanonical", "written for people", json.dumps(GOOD, indent=1).encode()
    unsorted = json.dumps(dict(reversed(GOOD.items())), separators=(",", ":")).encode()
    yield "unsorted", "NotCanonical", "the members in another order", unsorted
    yield raw(
        "escaped-letter", "NotCanonical", "an escape that is not needed", "homelab", "h\\u006fmelab"
    )
    yield raw("lone-surrogate", "NotJson", "half a UTF-16 pair", "homelab", "\\ud800")
    yield raw("surrogate-pair", "NotJson", "an escaped UTF-16 pair", "homelab", "\\ud83d\\ude00")
    yield raw("control-character", "NotJson", "a raw tab within a text", "homelab", "home\tlab")
    yield raw(
        "name-twice", "DuplicateName", "epoch stands twice", '"epoch":1', '"epoch":1,"epoch":1'
    )
    yield raw(
        "name-twice-escaped",
        "DuplicateName",
        "the same name in two spellings",
        '"epoch":1',
        '"epoch":1,"\\u0065poch":2',
    )
    yield raw(
        "name-twice-deep",
        "DuplicateName",
        "within a client",
        '"keys":[]',
        '"keys":[],"keys":["bletchley"]',
    )
    deep = "[" * 5_000 + "]" * 5_000
    yield "nested-5000-deep", "TooLarge", "lists within lists", deep.encode()
    yield (
        "sealed-65-deep",
        "TooLarge",
        "more than 64 lists and objects within each other",
        canonical(edited(_nested(61), "tree", "any", 0, "sealed")),
    )


def _nested(levels: int) -> Object:
    value: JSON = []
    for _ in range(levels - 2):
        value = [value]
    return {"deep": value}


def _members() -> Iterator[Case]:
    for name, *path in [
        ("document", "extra"),
        ("key", "keys", "bletchley", "extra"),
        ("client", "clients", "lonely", "extra"),
        ("token", "clients", "bletchley", "tokens", 0, "extra"),
        ("body", "body", "extra"),
        ("leaf", "tree", "any", 0, "extra"),
        ("group", "tree", "any", 1, "extra"),
    ]:
        yield case(f"unknown-field-in-{name}", "UnknownField", "a member of no version", 1, *path)
    yield case(
        "leaf-and-group", "UnknownField", "a leaf that is also a group", [], "tree", "any", 0, "of"
    )
    for name, *path in [
        ("id", "id"),
        ("body", "body"),
        ("expires", "clients", "bletchley", "tokens", 0, "expires"),
        ("minimum", "keys", "bletchley", "minimum"),
        ("sealed", "tree", "any", 0, "sealed"),
        ("identifier", "tree", "any", 2, "identifier"),
    ]:
        yield case(f"missing-{name}", "MissingField", "null is written, not left out", GONE, *path)
    yield case("empty-node", "MissingField", "a node of no kind", {}, "tree")
    yield case("format-missing", "ForeignFormat", "an object that is something else", GONE, "kluis")
    yield case("format-foreign", "ForeignFormat", "a format that is not ours", "keyring/0", "kluis")
    yield case("format-number", "ForeignFormat", "a format that is no text", 1, "kluis")
    yield case("format-newer", "NewerFormat", "a later version of the format", "keyring/2", "kluis")

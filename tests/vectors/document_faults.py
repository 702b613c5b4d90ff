"""Documents with one fault each, found while reading: before anything is opened."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import cast

from tests.vectors.keyrings import People, Static, any_of, k_of, make
from tests.vectors.scheme import JSON, Object, b64, canonical

Step = str | int

GOOD = make(
    "faults",
    "disk or 2 of (nas, cloud, vault) or family",
    any_of(
        Static("disk"),
        k_of(2, Static("nas"), Static("cloud"), Static("vault")),
        People("family", 2, 3),
    ),
).sealed()
GONE = object()


def vectors() -> Iterator[tuple[str, Object]]:
    """Each by the name of its file."""
    for name, error, about, content in [*_bytes(), *_members(), *_values(), *_rules()]:
        vector: Object = {"about": about, "kind": "document", "error": error, "stage": "read"}
        try:
            vector["document"] = content.decode()
        except UnicodeDecodeError:
            vector["document_base64"] = b64(content)
        yield f"document/refused/{name}", vector
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


Case = tuple[str, str, str, bytes]


def edited(value: object, *path: Step, of: Object = GOOD) -> Object:
    """A copy with one member set, appended, or taken out (GONE)."""
    result = copy.deepcopy(of)
    place: object = result
    for step in path[:-1]:
        place = place[step]  # type: ignore[index]
    if value is GONE:
        del place[path[-1]]  # type: ignore[attr-defined]
    else:
        place[path[-1]] = value  # type: ignore[index]
    return result


def member(document: Object, *path: Step) -> JSON:
    """The member at a path."""
    place: object = document
    for step in path:
        place = place[step]  # type: ignore[index]
    return cast(JSON, place)


def _case(name: str, error: str, about: str, value: object, *path: Step) -> Case:
    return name, error, about, canonical(edited(value, *path))


def _raw(name: str, error: str, about: str, old: str, new: str) -> Case:
    text = canonical(GOOD).decode()
    assert text.count(old) == 1, (name, text.count(old))
    return name, error, about, text.replace(old, new).encode()


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
    yield _raw(
        "escaped-letter", "NotCanonical", "an escape that is not needed", "homelab", "h\\u006fmelab"
    )
    yield _raw("lone-surrogate", "NotJson", "half a UTF-16 pair", "homelab", "\\ud800")
    yield _raw("surrogate-pair", "NotJson", "an escaped UTF-16 pair", "homelab", "\\ud83d\\ude00")
    yield _raw("control-character", "NotJson", "a raw tab within a text", "homelab", "home\tlab")
    yield _raw(
        "name-twice", "DuplicateName", "epoch stands twice", '"epoch":1', '"epoch":1,"epoch":1'
    )
    yield _raw(
        "name-twice-escaped",
        "DuplicateName",
        "the same name in two spellings",
        '"epoch":1',
        '"epoch":1,"\\u0065poch":2',
    )
    yield _raw(
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
        yield _case(f"unknown-field-in-{name}", "UnknownField", "a member of no version", 1, *path)
    yield _case(
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
        yield _case(f"missing-{name}", "MissingField", "null is written, not left out", GONE, *path)
    yield _case("empty-node", "MissingField", "a node of no kind", {}, "tree")
    yield _case(
        "format-missing", "ForeignFormat", "an object that is something else", GONE, "kluis"
    )
    yield _case(
        "format-foreign", "ForeignFormat", "a format that is not ours", "keyring/0", "kluis"
    )
    yield _case("format-number", "ForeignFormat", "a format that is no text", 1, "kluis")
    yield _case(
        "format-newer", "NewerFormat", "a later version of the format", "keyring/2", "kluis"
    )


def _values() -> Iterator[Case]:
    yield "a-list", "WrongType", "not an object", b"[]"
    for name, value in [
        ("text", "1"),
        ("boolean", True),
        ("null", None),
        ("zero", 0),
        ("negative", -1),
    ]:
        yield _case(f"epoch-{name}", "WrongType", "epochs count from 1", value, "epoch")
    for name, text in [
        ("fraction", "1.0"),
        ("exponent", "1e0"),
        ("infinite", "1e999"),
        ("nan", "NaN"),
        ("2-to-the-53", str(2**53)),
        ("5000-digits", "1" * 5000),
    ]:
        yield _raw(
            f"revision-{name}",
            "WrongType",
            "whole numbers below 2^53",
            '"revision":1',
            f'"revision":{text}',
        )
    yield _raw(
        "revision-leading-zero",
        "NotJson",
        "JSON has no leading zeros",
        '"revision":1',
        '"revision":01',
    )
    yield _raw("minus-zero", "NotCanonical", "zero has no sign", '"revision":1', '"revision":-0')
    yield _case(
        "id-in-capitals", "WrongType", "a UUID is written small", str(GOOD["id"]).upper(), "id"
    )
    yield _case("name-with-nul", "WrongType", "a NUL within a name", "home\0lab", "name")
    yield _case("name-too-long", "WrongType", "64 characters", "a" * 64, "name")
    yield _case(
        "written-no-such-day",
        "WrongType",
        "the 29th of February of 2023",
        "2023-02-29T00:00:00Z",
        "written",
    )
    yield _case(
        "written-with-offset",
        "WrongType",
        "times are in UTC",
        "2025-01-02T03:04:05+00:00",
        "written",
    )
    yield _case("key-name", "WrongType", "a key's name with a slash", {"a/b": {}}, "keys")
    yield _case(
        "key-kind",
        "WrongType",
        "a kind of key that does not exist",
        "rsa",
        "keys",
        "bletchley",
        "kind",
    )
    yield _case(
        "minimum-above-latest",
        "WrongType",
        "no version would be left",
        3,
        "keys",
        "bletchley",
        "minimum",
    )
    yield _case(
        "1025-versions", "WrongType", "at most 1024 versions", 1025, "keys", "bletchley", "latest"
    )
    yield _case(
        "client-keys-unsorted",
        "WrongType",
        "sets are sorted",
        ["seal.key", "bletchley"],
        "clients",
        "bletchley",
        "keys",
    )
    yield _case(
        "client-key-twice",
        "WrongType",
        "sets have no repeats",
        ["bletchley", "bletchley"],
        "clients",
        "bletchley",
        "keys",
    )
    yield _case(
        "network-with-host-bits",
        "WrongType",
        "an address with a prefix is no network",
        ["10.0.0.1/24"],
        "clients",
        "bletchley",
        "networks",
    )
    yield _case(
        "token-in-capitals",
        "WrongType",
        "digests are written small",
        "AB" * 32,
        "clients",
        "bletchley",
        "tokens",
        0,
        "sha256",
    )
    yield _case(
        "nine-tokens",
        "TooLarge",
        "a client has at most 8 tokens",
        [{}] * 9,
        "clients",
        "bletchley",
        "tokens",
    )
    yield _case("salt-cut", "WrongBase64", "31 bytes of salt", b64(bytes(31)), "body", "salt")
    yield _case("nonce-long", "WrongBase64", "13 bytes of nonce", b64(bytes(13)), "body", "nonce")
    for name, text in [
        ("url", "-_" + "A" * 14),
        ("unpadded", "A" * 42),
        ("newline", "A" * 16 + "\n"),
        ("not-ascii", "é" * 16),
        ("trailing-bits", "A" * 22 + "B="),
    ]:
        yield _case(
            f"base64-{name}", "WrongBase64", "strict base64 only", text, "body", "ciphertext"
        )
    yield _case("ciphertext-null", "WrongType", "no ciphertext", None, "body", "ciphertext")


def _rules() -> Iterator[Case]:
    yield _case(
        "ciphertext-without-tag",
        "Inconsistent",
        "15 bytes can't hold a tag",
        b64(bytes(15)),
        "body",
        "ciphertext",
    )
    for name, opens in [
        ("other-order", "2 of (nas, cloud, vault) or disk or family"),
        ("other-threshold", "disk or nas and cloud and vault or family"),
        ("other-spelling", "disk or 2 of (nas,cloud,vault) or family"),
        ("needless-brackets", "(disk) or 2 of (nas, cloud, vault) or family"),
        ("unreadable", "disk or 2 of (nas, cloud, vault or family"),
        ("names-twice", "disk or disk"),
    ]:
        yield _case(
            f"opens-{name}", "Inconsistent", "'opens' must be what 'tree' says", opens, "opens"
        )
    yield _case(
        "opens-two-lines", "WrongType", "an expression is one line", "disk\nor nas", "opens"
    )
    leaf: Object = {"anchor": "disk", "kind": "static", "sealed": None}
    yield _case(
        "group-of-one", "Inconsistent", "a group of one is its member", {"any": [leaf]}, "tree"
    )
    yield _case("group-of-none", "Inconsistent", "nothing opens nothing", {"any": []}, "tree")
    twice = edited("disk or disk", "opens")
    yield (
        "anchor-twice",
        "Inconsistent",
        "one anchor must not count as two",
        canonical({**twice, "tree": {"any": [leaf, leaf]}}),
    )
    nested: Object = {
        "any": [leaf, {"any": [{**leaf, "anchor": "nas"}, {**leaf, "anchor": "cloud"}]}]
    }
    yield (
        "any-within-any",
        "Inconsistent",
        "not in normal form",
        canonical({**GOOD, "opens": "disk or nas or cloud", "tree": nested}),
    )
    yield _case(
        "threshold-of-one",
        "WrongType",
        "1 of n is written as any",
        1,
        "tree",
        "any",
        1,
        "threshold",
    )
    yield _case("threshold-above-members", "WrongType", "4 of 3", 4, "tree", "any", 1, "threshold")
    yield _case(
        "people-one-of-three",
        "WrongType",
        "SLIP-39 has no 1 of 3",
        1,
        "tree",
        "any",
        2,
        "threshold",
    )
    yield _case(
        "people-seventeen",
        "WrongType",
        "SLIP-39 has at most 16 shares",
        17,
        "tree",
        "any",
        2,
        "shares",
    )
    yield _case(
        "people-identifier",
        "WrongType",
        "an identifier has 15 bits",
        2**15,
        "tree",
        "any",
        2,
        "identifier",
    )
    yield _case(
        "anchor-named-or",
        "Inconsistent",
        "a word of the expression is no name",
        "or",
        "tree",
        "any",
        0,
        "anchor",
    )
    yield _case(
        "anchor-kind", "WrongType", "a kind has no capitals", "Static", "tree", "any", 0, "kind"
    )
    yield _case(
        "sealed-a-text",
        "WrongType",
        "what an anchor sealed is an object",
        "x",
        "tree",
        "any",
        0,
        "sealed",
    )
    yield _case(
        "sealed-over-16-kib",
        "TooLarge",
        "what an anchor seals is small",
        {"x": "x" * 16384},
        "tree",
        "any",
        0,
        "sealed",
    )
    yield _case(
        "33-members", "TooLarge", "a policy has at most 32 anchors", [leaf] * 33, "tree", "any"
    )
    deep: JSON = leaf
    for _ in range(9):
        deep = {"any": [deep, leaf]}
    yield _case(
        "tree-nine-deep", "TooLarge", "at most eight groups within each other", deep, "tree"
    )
    yield _case(
        "client-of-no-key",
        "Inconsistent",
        "a client's key is not in the directory",
        ["other"],
        "clients",
        "lonely",
        "keys",
    )
    tokens = member(GOOD, "clients", "bletchley", "tokens")
    yield _case(
        "token-of-two-clients",
        "Inconsistent",
        "a token says who asks",
        tokens,
        "clients",
        "lonely",
        "tokens",
    )

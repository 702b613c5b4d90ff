"""Documents with one wrong value each, or with a rule that is none, found while reading."""

from __future__ import annotations

from collections.abc import Iterator

from tests.vectors.editing import GOOD, Case, case, edited, member, raw, refused
from tests.vectors.scheme import JSON, Object, b64, canonical


def vectors() -> Iterator[tuple[str, Object]]:
    """Each by the name of its file."""
    yield from refused([*_values(), *_rules()])


def _values() -> Iterator[Case]:
    yield "a-list", "WrongType", "not an object", b"[]"
    for name, value in [
        ("text", "1"),
        ("boolean", True),
        ("null", None),
        ("zero", 0),
        ("negative", -1),
    ]:
        yield case(f"epoch-{name}", "WrongType", "epochs count from 1", value, "epoch")
    for name, text in [
        ("fraction", "1.0"),
        ("exponent", "1e0"),
        ("infinite", "1e999"),
        ("nan", "NaN"),
        ("2-to-the-53", str(2**53)),
        ("5000-digits", "1" * 5000),
    ]:
        yield raw(
            f"revision-{name}",
            "WrongType",
            "whole numbers below 2^53",
            '"revision":1',
            f'"revision":{text}',
        )
    yield raw(
        "revision-leading-zero",
        "NotJson",
        "JSON has no leading zeros",
        '"revision":1',
        '"revision":01',
    )
    yield raw("minus-zero", "NotCanonical", "zero has no sign", '"revision":1', '"revision":-0')
    yield case(
        "id-in-capitals", "WrongType", "a UUID is written small", str(GOOD["id"]).upper(), "id"
    )
    yield case("name-with-nul", "WrongType", "a NUL within a name", "home\0lab", "name")
    yield case("name-too-long", "WrongType", "64 characters", "a" * 64, "name")
    yield case(
        "written-no-such-day",
        "WrongType",
        "the 29th of February of 2023",
        "2023-02-29T00:00:00Z",
        "written",
    )
    yield case(
        "written-with-offset",
        "WrongType",
        "times are in UTC",
        "2025-01-02T03:04:05+00:00",
        "written",
    )
    yield case("key-name", "WrongType", "a key's name with a slash", {"a/b": {}}, "keys")
    yield case(
        "key-kind",
        "WrongType",
        "a kind of key that does not exist",
        "rsa",
        "keys",
        "bletchley",
        "kind",
    )
    yield case(
        "minimum-above-latest",
        "WrongType",
        "no version would be left",
        3,
        "keys",
        "bletchley",
        "minimum",
    )
    yield case(
        "1025-versions", "WrongType", "at most 1024 versions", 1025, "keys", "bletchley", "latest"
    )
    yield case(
        "client-keys-unsorted",
        "WrongType",
        "sets are sorted",
        ["seal.key", "bletchley"],
        "clients",
        "bletchley",
        "keys",
    )
    yield case(
        "client-key-twice",
        "WrongType",
        "sets have no repeats",
        ["bletchley", "bletchley"],
        "clients",
        "bletchley",
        "keys",
    )
    yield case(
        "network-with-host-bits",
        "WrongType",
        "an address with a prefix is no network",
        ["10.0.0.1/24"],
        "clients",
        "bletchley",
        "networks",
    )
    yield case(
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
    yield case(
        "nine-tokens",
        "TooLarge",
        "a client has at most 8 tokens",
        [{}] * 9,
        "clients",
        "bletchley",
        "tokens",
    )
    yield case("salt-cut", "WrongBase64", "31 bytes of salt", b64(bytes(31)), "body", "salt")
    yield case("nonce-long", "WrongBase64", "13 bytes of nonce", b64(bytes(13)), "body", "nonce")
    for name, text in [
        ("url", "-_" + "A" * 14),
        ("unpadded", "A" * 42),
        ("newline", "A" * 16 + "\n"),
        ("not-ascii", "é" * 16),
        ("trailing-bits", "A" * 22 + "B="),
    ]:
        yield case(
            f"base64-{name}", "WrongBase64", "strict base64 only", text, "body", "ciphertext"
        )
    yield case("ciphertext-null", "WrongType", "no ciphertext", None, "body", "ciphertext")


def _rules() -> Iterator[Case]:
    yield case(
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
        yield case(
            f"opens-{name}", "Inconsistent", "'opens' must be what 'tree' says", opens, "opens"
        )
    yield case("opens-two-lines", "WrongType", "an expression is one line", "disk\nor nas", "opens")
    leaf: Object = {"anchor": "disk", "kind": "static", "sealed": None}
    yield case(
        "group-of-one", "Inconsistent", "a group of one is its member", {"any": [leaf]}, "tree"
    )
    yield case("group-of-none", "Inconsistent", "nothing opens nothing", {"any": []}, "tree")
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
    yield case(
        "threshold-of-one",
        "WrongType",
        "1 of n is written as any",
        1,
        "tree",
        "any",
        1,
        "threshold",
    )
    yield case("threshold-above-members", "WrongType", "4 of 3", 4, "tree", "any", 1, "threshold")
    yield case(
        "people-one-of-three",
        "WrongType",
        "SLIP-39 has no 1 of 3",
        1,
        "tree",
        "any",
        2,
        "threshold",
    )
    yield case(
        "people-seventeen",
        "WrongType",
        "SLIP-39 has at most 16 shares",
        17,
        "tree",
        "any",
        2,
        "shares",
    )
    yield case(
        "people-identifier",
        "WrongType",
        "an identifier has 15 bits",
        2**15,
        "tree",
        "any",
        2,
        "identifier",
    )
    yield case(
        "anchor-named-or",
        "Inconsistent",
        "a word of the expression is no name",
        "or",
        "tree",
        "any",
        0,
        "anchor",
    )
    yield case(
        "anchor-kind", "WrongType", "a kind has no capitals", "Static", "tree", "any", 0, "kind"
    )
    yield case(
        "sealed-a-text",
        "WrongType",
        "what an anchor sealed is an object",
        "x",
        "tree",
        "any",
        0,
        "sealed",
    )
    yield case(
        "sealed-over-16-kib",
        "TooLarge",
        "what an anchor seals is small",
        {"x": "x" * 16384},
        "tree",
        "any",
        0,
        "sealed",
    )
    yield case(
        "33-members", "TooLarge", "a policy has at most 32 anchors", [leaf] * 33, "tree", "any"
    )
    deep: JSON = leaf
    for _ in range(9):
        deep = {"any": [deep, leaf]}
    yield case("tree-nine-deep", "TooLarge", "at most eight groups within each other", deep, "tree")
    yield case(
        "client-of-no-key",
        "Inconsistent",
        "a client's key is not in the directory",
        ["other"],
        "clients",
        "lonely",
        "keys",
    )
    tokens = member(GOOD, "clients", "bletchley", "tokens")
    yield case(
        "token-of-two-clients",
        "Inconsistent",
        "a token says who asks",
        tokens,
        "clients",
        "lonely",
        "tokens",
    )

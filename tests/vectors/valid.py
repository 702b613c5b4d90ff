"""Documents that are right: every shape of a policy, with all that is secret in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.vectors.keyrings import Keyring, People, Phrase, Shape, Static, any_of, k_of, make
from tests.vectors.scheme import JSON, Object, canonical

DISK, NAS, CLOUD, ROOM = Static("disk"), Static("nas"), Static("cloud"), Phrase("room")
FAMILY = People("family", 2, 3)

SHAPES: Final[dict[str, tuple[str, str, Shape, list[list[str]]]]] = {
    "one-anchor": ("one anchor, no group: the path is /", "disk", DISK, [["disk"]]),
    "passphrase": ("a passphrase alone", "room", ROOM, [["room"]]),
    "people-alone": ("people alone, two of three", "family", FAMILY, [["family"]]),
    "one-person": ("one share on one paper", "safe", People("safe", 1, 1), [["safe"]]),
    "any": (
        "one of two: both leaves hold the root secret",
        "disk or family",
        any_of(DISK, FAMILY),
        [["disk"], ["family"]],
    ),
    "all": ("both of two", "disk and nas", k_of(2, DISK, NAS), [["disk", "nas"]]),
    "threshold": (
        "two of three",
        "2 of (disk, nas, cloud)",
        k_of(2, DISK, NAS, CLOUD),
        [["cloud", "disk"], ["cloud", "nas"], ["disk", "nas"]],
    ),
    "and-binds-tighter": (
        "and before or",
        "disk and nas or family",
        any_of(k_of(2, DISK, NAS), FAMILY),
        [["disk", "nas"], ["family"]],
    ),
    "any-in-all": (
        "an or within an and stands in brackets",
        "disk and (nas or family)",
        k_of(2, DISK, any_of(NAS, FAMILY)),
        [["disk", "family"], ["disk", "nas"]],
    ),
    "threshold-in-any": (
        "the rule of the readme",
        "disk or 2 of (nas, cloud, room) or family",
        any_of(DISK, k_of(2, NAS, CLOUD, ROOM), FAMILY),
        [["cloud", "nas"], ["cloud", "room"], ["disk"], ["family"], ["nas", "room"]],
    ),
    "threshold-in-threshold": (
        "a threshold whose members are a threshold, an and, and people",
        "2 of (2 of (disk, nas, cloud), room and safe, family)",
        k_of(
            2,
            k_of(2, DISK, NAS, CLOUD),
            k_of(2, ROOM, People("safe", 1, 1)),
            FAMILY,
        ),
        [
            ["cloud", "disk", "family"],
            ["cloud", "disk", "room", "safe"],
            ["cloud", "family", "nas"],
            ["cloud", "nas", "room", "safe"],
            ["disk", "family", "nas"],
            ["disk", "nas", "room", "safe"],
            ["family", "room", "safe"],
        ],
    ),
    "unsealed-leaf": (
        "an anchor that was away: sealed is null, its secret is in the body",
        "disk or nas",
        any_of(DISK, Static("nas", away=True)),
        [["disk"], ["nas"]],
    ),
}


def vectors() -> Iterator[tuple[str, Object]]:
    """Each by the name of its file."""
    for name, (about, opens, shape, quorums) in SHAPES.items():
        yield f"document/valid/{name}", _vector(about, make(name, opens, shape), quorums)
    yield "document/valid/deepest", _deepest()
    yield "document/valid/later-epoch", _later()
    yield "document/valid/nothing-in-it", _empty()


def _vector(
    about: str, keyring: Keyring, quorums: list[list[str]], document: Object | None = None
) -> Object:
    leaves: dict[str, JSON] = {path: secret.hex() for path, secret in keyring.leaves.items()}
    return {
        "about": about,
        "kind": "document",
        "document": canonical(document or keyring.sealed()).decode(),
        "root_secret": keyring.root.hex(),
        "leaf_secrets": leaves,
        "anchors": keyring.anchors,
        "quorums": quorums,
        "contents": keyring.contents,
        "error": None,
    }


def _deepest() -> Object:
    shape: Shape = Static("a0")
    opens, quorum = "a0", ["a0"]
    for level in range(1, 9):
        shape = k_of(2, shape, Static(f"a{level}"), Static(f"b{level}"))
        opens = f"2 of ({opens}, a{level}, b{level})"
        quorum = [*quorum, f"a{level}"]
    keyring = make("deepest", opens, shape)
    quorums = [["a8", "b8"]]
    for level in range(7, 0, -1):
        outer = [sorted(names) for names in _outer(level + 1)]
        quorums += [sorted([f"a{level}", f"b{level}", *names]) for names in outer]
    quorums += [sorted(["a0", *names]) for names in _outer(1)]
    return _vector(
        "eight groups within each other, the most there may be", keyring, sorted(quorums)
    )


def _outer(level: int) -> list[list[str]]:
    """What is needed from this level outwards, one name a level."""
    if level > 8:
        return [[]]
    return [[f"{side}{level}", *rest] for side in "ab" for rest in _outer(level + 1)]


def _later() -> Object:
    keyring = make("later-epoch", "disk", DISK, epoch=7, revision=2**53 - 1)
    return _vector("a later epoch is bound by the leaf; the highest revision", keyring, [["disk"]])


def _empty() -> Object:
    keyring = make("nothing-in-it", "disk", DISK)
    keyring.contents = {**keyring.contents, "keys": {}}
    document = keyring.sealed(keys={}, clients={})
    return _vector("no keys and no clients", keyring, [["disk"]], document)

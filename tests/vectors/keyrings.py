"""Whole keyrings for the vectors, made from a shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from tests.vectors.scheme import (
    JSON,
    Object,
    Stream,
    b64,
    canonical,
    context,
    identifier,
    paper,
    seal_body,
    seal_passphrase,
    seal_static,
    split,
)

PASSPHRASE: Final = "correct horse battery staple"
WRITTEN: Final = "2025-01-02T03:04:05Z"
ID: Final = "0c4f6e0a-5b1d-4c57-9a53-2f7a1e9d8b60"


@dataclass(frozen=True)
class Static:
    """A leaf of a ``static`` anchor; ``away``: it was not sealed yet."""

    name: str
    away: bool = False


@dataclass(frozen=True)
class Phrase:
    """A leaf of a ``passphrase`` anchor."""

    name: str


@dataclass(frozen=True)
class People:
    """A leaf of people."""

    name: str
    threshold: int
    shares: int


@dataclass(frozen=True)
class Any:
    """One of these."""

    of: tuple[Shape, ...]


@dataclass(frozen=True)
class Of:
    """``threshold`` of these."""

    threshold: int
    of: tuple[Shape, ...]


Shape = Static | Phrase | People | Any | Of


def any_of(*of: Shape) -> Any:
    return Any(of)


def k_of(threshold: int, *of: Shape) -> Of:
    return Of(threshold, of)


@dataclass
class Keyring:
    """A keyring with everything a second implementation needs to check itself against it."""

    label: str
    root: bytes
    document: Object
    contents: Object
    leaves: dict[str, bytes] = field(default_factory=dict)
    machine: dict[str, bytes] = field(default_factory=dict)
    anchors: Object = field(default_factory=dict)

    def sealed(self, **changes: JSON) -> Object:
        """The document with a new body, after ``changes`` to what it says."""
        return seal_body(
            {**self.document, **changes},
            self.root,
            canonical(self.contents),
            Stream(f"{self.label}/body"),
        )

    def with_body(self, plaintext: bytes) -> Object:
        """The document with these very bytes as the body's plaintext."""
        return seal_body(self.document, self.root, plaintext, Stream(f"{self.label}/body"))


def make(label: str, opens: str, shape: Shape, *, epoch: int = 1, revision: int = 1) -> Keyring:
    """A keyring of this shape with one key of each generated kind and two clients."""
    random = Stream(label)
    material = {name: random(32) for name in ("bletchley", "old", "static")}
    document: Object = {
        "kluis": "keyring/1",
        "id": ID,
        "name": "homelab",
        "epoch": epoch,
        "revision": revision,
        "written": WRITTEN,
        "opens": opens,
        "keys": {
            "bletchley": {"kind": "transit", "latest": 2, "minimum": 2},
            "seal.key": {"kind": "static-seal", "latest": 1, "minimum": 1},
        },
        "clients": {
            "bletchley": {
                "tokens": [_token("bletchley", None), _token("older", "2025-02-28T00:00:00Z")],
                "keys": ["bletchley", "seal.key"],
                "certificate_san": "bletchley.example",
                "networks": ["10.0.0.0/24", "fd00::/8"],
            },
            "lonely": {"tokens": [], "keys": [], "certificate_san": None, "networks": []},
        },
    }
    keyring = Keyring(label, random(32), document, {})
    document["tree"] = _node(shape, keyring.root, "", keyring, random)
    keyring.contents = {
        "keys": {
            "bletchley": {
                "kind": "transit",
                "minimum": 2,
                "versions": {
                    "1": {"material": b64(material["old"]), "created": WRITTEN},
                    "2": {"material": b64(material["bletchley"]), "created": WRITTEN},
                },
            },
            "seal.key": {
                "kind": "static-seal",
                "minimum": 1,
                "versions": {"1": {"material": b64(material["static"]), "created": WRITTEN}},
            },
        },
        "leaves": {path: b64(secret) for path, secret in keyring.machine.items()},
    }
    return keyring


def _token(text: str, expires: str | None) -> Object:
    digest = hashlib.sha256(f"kluis_{text}".encode()).hexdigest()
    return {"sha256": digest, "issued": WRITTEN, "expires": expires}


def _node(shape: Shape, secret: bytes, path: str, keyring: Keyring, random: Stream) -> Object:
    match shape:
        case Any(of):
            children = [_node(s, secret, f"{path}/{i}", keyring, random) for i, s in enumerate(of)]
            return {"any": children}
        case Of(threshold, of):
            shares = split(secret, threshold, len(of), random)
            children = [
                _node(s, shares[i], f"{path}/{i}", keyring, random) for i, s in enumerate(of)
            ]
            return {"threshold": threshold, "of": children}
        case _:
            keyring.leaves[path or "/"] = secret
            return _leaf(shape, secret, path or "/", keyring, random)


def _leaf(
    leaf: Static | Phrase | People, secret: bytes, path: str, keyring: Keyring, random: Stream
) -> Object:
    match leaf:
        case People(name, threshold, shares):
            mnemonics = paper(secret, threshold, shares, random)
            keyring.anchors[name] = {"kind": "people", "mnemonics": mnemonics}
            return {
                "people": name,
                "threshold": threshold,
                "shares": shares,
                "identifier": identifier(mnemonics[0]),
            }
        case Phrase(name):
            keyring.anchors[name] = {"kind": "passphrase", "passphrase": PASSPHRASE}
            bound = context(keyring.document, path, "passphrase")
            sealed = seal_passphrase(PASSPHRASE, secret, bound, random)
            keyring.machine[path] = secret
            return {"anchor": name, "kind": "passphrase", "sealed": sealed}
        case Static(name, away):
            key = random(32)
            keyring.anchors[name] = {"kind": "static", "key": key.hex()}
            bound = context(keyring.document, path, "static")
            keyring.machine[path] = secret
            box = None if away else seal_static(key, secret, bound, random)
            return {"anchor": name, "kind": "static", "sealed": box}

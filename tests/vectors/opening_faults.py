"""Documents that read well and don't open: changed by somebody, or written wrongly by kluis."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from tests.vectors.editing import GONE, Step, edited, member
from tests.vectors.keyrings import Keyring, Static, k_of, make
from tests.vectors.scheme import Object, b64, canonical


def vectors() -> Iterator[tuple[str, Object]]:
    """Each by the name of its file."""
    for name, about, document in [*_changed(_threshold()), *_mixed(_threshold())]:
        yield f"document/forged/{name}", _vector(about, document, "NotAuthentic", _threshold().root)
    for name, error, about, keyring, plaintext in _written_wrongly():
        document = keyring.with_body(plaintext)
        yield f"document/miswritten/{name}", _vector(about, document, error, keyring.root)


Case = tuple[str, str, Object]
TOKENS: tuple[Step, ...] = ("clients", "bletchley", "tokens")


def _vector(about: str, document: Object, error: str, root: bytes) -> Object:
    return {
        "about": about,
        "kind": "document",
        "document": canonical(document).decode(),
        "root_secret": root.hex(),
        "error": error,
        "stage": "open",
    }


def _threshold(label: str = "opening", epoch: int = 3, revision: int = 9) -> Keyring:
    shape = k_of(2, Static("disk"), Static("nas"), Static("cloud"))
    return make(label, "2 of (disk, nas, cloud)", shape, epoch=epoch, revision=revision)


def _changed(keyring: Keyring) -> Iterator[Case]:
    good = keyring.sealed()

    def changed(name: str, value: object, *path: Step) -> Case:
        return name, "a public member was changed", edited(value, *path, of=good)

    yield changed("id", "0c4f6e0a-5b1d-4c57-9a53-2f7a1e9d8b61", "id")
    yield changed("name", "homelab2", "name")
    yield changed("epoch", 2, "epoch")
    yield changed("revision", 8, "revision")
    yield changed("written", "2025-01-02T03:04:06Z", "written")
    yield changed("key-minimum-lowered", 1, "keys", "bletchley", "minimum")
    yield changed("client-forged", "0" * 64, *TOKENS, 0, "sha256")
    yield changed("expiry-removed", None, *TOKENS, 1, "expires")
    yield changed("certificate-removed", None, "clients", "bletchley", "certificate_san")
    yield changed("network-widened", ["0.0.0.0/0"], "clients", "bletchley", "networks")
    yield changed("client-widened", ["bletchley"], "clients", "lonely", "keys")
    yield changed("leaf-unsealed", None, "tree", "of", 0, "sealed")
    yield changed("kind-changed", "passphrase", "tree", "of", 0, "kind")
    yield changed("salt", b64(bytes(32)), "body", "salt")
    yield changed("nonce", b64(bytes(12)), "body", "nonce")
    body = base64.b64decode(str(member(good, "body", "ciphertext")))
    for name, ciphertext in [
        ("ciphertext-bit", bytes([body[0] ^ 1]) + body[1:]),
        ("tag-bit", body[:-1] + bytes([body[-1] ^ 0x80])),
        ("ciphertext-cut", body[1:]),
        ("tag-only", body[-16:]),
    ]:
        yield name, "the body was changed", edited(b64(ciphertext), "body", "ciphertext", of=good)
    yield (
        "policy-widened",
        "'opens' and 'tree' were changed together, the leaves kept",
        {**good, "opens": "disk or nas or cloud", "tree": {"any": member(good, "tree", "of")}},
    )
    one, two = member(good, "tree", "of", 0, "sealed"), member(good, "tree", "of", 1, "sealed")
    half = edited(two, "tree", "of", 0, "sealed", of=good)
    swapped = edited(one, "tree", "of", 1, "sealed", of=half)
    yield "leaves-swapped", "two leaves hold each other's", swapped


def _mixed(keyring: Keyring) -> Iterator[Case]:
    good = keyring.sealed()
    older = _threshold(revision=8).sealed()
    yield "older-body", "the body of the revision before", {**good, "body": older["body"]}
    before = _threshold("opening/before", epoch=2)
    leaf = member(before.document, "tree", "of", 0)
    yield "older-leaf", "a leaf of the epoch before", edited(leaf, "tree", "of", 0, of=good)
    yield "other-root", "a document of another root secret", before.sealed()
    other = _threshold("opening/other").sealed()
    yield "other-tree", "the tree of another keyring", {**good, "tree": other["tree"]}
    yield "other-clients-body", "the body of another keyring", {**good, "body": other["body"]}


Wrong = tuple[str, str, str, Keyring, bytes]


def _written_wrongly() -> Iterator[Wrong]:
    """The tag fits: only a writer that knew the root secret can have done this."""
    keyring = _threshold("miswritten")
    good = keyring.contents
    yield "not-json", "NotJson", "a body that is no JSON", keyring, b"kluis"
    yield "not-canonical", "NotCanonical", "a space in the body", keyring, canonical(good) + b" "

    def wrong(name: str, error: str, about: str, value: object, *path: Step) -> Wrong:
        return name, error, about, keyring, canonical(edited(value, *path, of=good))

    versions: tuple[Step, ...] = ("keys", "bletchley", "versions")
    no_secret, short = b64(bytes(32)), b64(bytes(31))
    yield wrong("unknown-field", "UnknownField", "a member too many", 1, "extra")
    yield wrong(
        "extra-in-key", "UnknownField", "a member too many", 1, "keys", "bletchley", "extra"
    )
    yield wrong("extra-in-version", "UnknownField", "a member too many", 1, *versions, "2", "extra")
    yield wrong("leaves-missing", "MissingField", "no leaves at all", GONE, "leaves")
    yield wrong("material-short", "WrongBase64", "31 bytes", short, *versions, "2", "material")
    yield wrong("created", "WrongType", "a time that is none", "now", *versions, "2", "created")
    yield wrong("kind", "WrongType", "a kind that is none", "rsa", "keys", "bletchley", "kind")
    yield wrong("version-zero", "WrongType", "versions count from 1", {"0": {}}, *versions)
    yield wrong("version-01", "WrongType", "one spelling for each version", {"01": {}}, *versions)
    yield wrong("no-versions", "Inconsistent", "a key without any", {}, *versions)
    yield wrong("minimum-above", "Inconsistent", "above the latest", 3, *versions[:2], "minimum")
    yield wrong("other-directory", "Inconsistent", "it says 2", 1, *versions[:2], "minimum")
    yield wrong("missing-key", "Inconsistent", "the directory has more keys", {}, "keys")
    yield wrong("missing-leaf", "Inconsistent", "the tree has three", {"/0": no_secret}, "leaves")
    yield wrong("leaf-short", "WrongBase64", "31 bytes", short, "leaves", "/0")
    yield wrong(
        "leaf-path", "WrongType", "one spelling for each path", {"/00": no_secret}, "leaves"
    )

"""The body: what a keyring keeps secret, encrypted under the root secret.

Body key = HKDF-SHA-256(root secret, salt, "kluis keyring/1 body"); AES-256-GCM; the associated
data is the whole document but the ciphertext. So whoever opens the body proves the policy, the
clients and the key directory with the same tag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from kluis.errors import Inconsistent, NotAuthentic, TagMismatch
from kluis.keyring import crypto, tree
from kluis.keyring.document import (
    MAX_BODY_BYTES,
    MAX_KEYS,
    TIME_PATTERN,
    Body,
    Document,
    KeyEntry,
    associated_data,
)
from kluis.keyring.keys import (
    GENERATED_KINDS,
    KEY_KINDS,
    MAX_MATERIAL_BYTES,
    MAX_VERSIONS,
    Key,
    Version,
)
from kluis.keyring.policy import KEY_NAME_PATTERN, MAX_ANCHORS
from kluis.keyring.strict import (
    JSON,
    Fields,
    as_base64,
    canonical,
    read_canonical,
    refuse_too_many,
    to_base64,
)
from kluis.secret import SECRET_BYTES, Secret

_INFO: Final = "kluis keyring/1 body"
_INDEX: Final = r"(?:0|[1-9][0-9]?)"
_PATH_PATTERN: Final = rf"/(?:{_INDEX}(?:/{_INDEX})*)?"  # one text for each path


@dataclass(frozen=True, slots=True)
class Contents:
    """The keys, and the secrets of the machine leaves, so that one can be sealed anew alone."""

    keys: Mapping[str, Key]
    leaves: Mapping[tree.Path, Secret]

    def directory(self) -> dict[str, KeyEntry]:
        """What everybody may see of the keys."""
        return {n: KeyEntry(k.kind, k.latest, k.minimum) for n, k in self.keys.items()}


def seal(document: Document, root: Secret, contents: Contents) -> Document:
    """The document with these contents in its body, and their directory; a new salt and nonce.

    Raises TooLarge when the body could not be read back.
    """
    salt, nonce = crypto.random_bytes(crypto.SALT_BYTES), crypto.new_nonce()
    draft = replace(document, keys=contents.directory(), body=Body(salt, nonce, b""))
    plaintext = canonical(_to_json(contents))
    refuse_too_many("the body", len(plaintext), MAX_BODY_BYTES)
    sealed = _cipher(root, salt).seal(plaintext, associated_data(draft), nonce)
    return replace(draft, body=Body(salt, nonce, sealed[crypto.NONCE_BYTES :]))


def open_(document: Document, root: Secret) -> Contents:
    """The contents, and with them the proof of the document.

    Raises NotAuthentic; another DocumentError if whoever wrote it knew the root secret, and erred.
    """
    body = document.body
    try:
        plaintext = _cipher(root, body.salt).open(
            body.nonce + body.ciphertext, associated_data(document)
        )
    except TagMismatch:
        raise NotAuthentic(
            f"the body of {document.name} does not verify",
            "the secret is another one's, or somebody changed the document",
            "take the document from a backup or from the store's history",
        ) from None
    contents = _from_json(Fields(read_canonical(plaintext, MAX_BODY_BYTES), "body"))
    if contents.directory() != document.keys:
        raise Inconsistent(
            "the key directory and the keys differ", "a fault of the writer", "use a backup"
        )
    if set(contents.leaves) != _machine_leaves(document):
        raise Inconsistent(
            "the body and the tree have other leaves", "a fault of the writer", "use a backup"
        )
    return contents


def _machine_leaves(document: Document) -> set[tree.Path]:
    return {path for path, leaf in tree.leaves(document.tree) if isinstance(leaf, tree.AnchorLeaf)}


def _cipher(root: Secret, salt: bytes) -> crypto.Aead:
    return crypto.Aead(crypto.hkdf(root.reveal(), salt, _INFO))


def _to_json(contents: Contents) -> dict[str, JSON]:
    return {
        "keys": {name: _key_to_json(key) for name, key in contents.keys.items()},
        "leaves": {
            tree.show_path(path): to_base64(secret.reveal())
            for path, secret in contents.leaves.items()
        },
    }


def _key_to_json(key: Key) -> dict[str, JSON]:
    versions: dict[str, JSON] = {
        str(number): {"material": to_base64(version.material), "created": version.created}
        for number, version in key.versions.items()
    }
    return {"kind": key.kind, "minimum": key.minimum, "versions": versions}


def _from_json(fields: Fields) -> Contents:
    keys = {
        name: _key(Fields(value, f"body.keys.{name}"))
        for name, value in fields.members("keys", KEY_NAME_PATTERN, MAX_KEYS)
    }
    leaves = {
        _path(path): Secret(as_base64(value, f"body.leaves.{path}", SECRET_BYTES, SECRET_BYTES))
        for path, value in fields.members("leaves", _PATH_PATTERN, MAX_ANCHORS)
    }
    fields.done()
    return Contents(keys, leaves)


def _path(shown: str) -> tree.Path:
    return tuple(int(index) for index in shown.split("/") if index)


def _key(fields: Fields) -> Key:
    kind = fields.text("kind", "|".join(KEY_KINDS))
    minimum = fields.integer("minimum", 1, MAX_VERSIONS)
    length = crypto.KEY_BYTES if kind in GENERATED_KINDS else None
    versions = {
        int(number): _version(Fields(value, f"{fields.where}.versions.{number}"), length)
        for number, value in fields.members("versions", r"[1-9][0-9]{0,3}", MAX_VERSIONS)
    }
    fields.done()
    if not versions or minimum > max(versions):
        raise Inconsistent(
            f"{fields.where} has no usable version", "a fault of the writer", "use a backup"
        )
    return Key(kind, versions, minimum)


def _version(fields: Fields, length: int | None) -> Version:
    version = Version(
        material=fields.base64("material", length, MAX_MATERIAL_BYTES),
        created=fields.text("created", TIME_PATTERN),
    )
    fields.done()
    return version

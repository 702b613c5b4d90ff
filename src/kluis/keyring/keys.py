"""Keys: named, versioned things in a keyring's body; rotation and minimum versions.

Ciphertexts of ``transit`` keys are those of the Transit engine: ``vault:v<N>:`` and the base64 of
nonce (12 bytes), ciphertext and tag (16 bytes), AES-256-GCM.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from kluis.errors import BadCiphertext, TagMismatch, VersionRefused
from kluis.keyring import crypto

KEY_KINDS: Final = ("transit", "static-seal", "unseal-shares", "kms", "opaque")
GENERATED_KINDS: Final = ("transit", "static-seal", "kms")
MAX_VERSIONS: Final = 1024
MAX_MATERIAL_BYTES: Final = 32 * 1024


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key: its secret material and when it was made (RFC 3339, UTC)."""

    material: bytes
    created: str

    def __repr__(self) -> str:
        return f"Version(created={self.created!r})"


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its versions, counted from 1; versions below ``minimum`` decrypt nothing."""

    kind: str
    versions: Mapping[int, Version]
    minimum: int = 1

    @property
    def latest(self) -> int:
        """The version that encrypts."""
        return max(self.versions)


def generate(kind: str, now: str) -> Key:
    """A new key with one version of 32 random bytes."""
    if kind not in GENERATED_KINDS:
        raise ValueError(f"keys of kind {kind} are imported, not generated")
    return Key(kind, {1: Version(crypto.random_bytes(crypto.KEY_BYTES), now)})


def rotate(key: Key, now: str) -> Key:
    """The same key with one more version, made like the first. Imported kinds stay as they are."""
    if key.kind not in GENERATED_KINDS:
        return key
    if key.latest >= MAX_VERSIONS:
        raise VersionRefused(
            f"the key has {key.latest} versions",
            f"a key has at most {MAX_VERSIONS}",
            "make a new key and move its clients there",
        )
    version = Version(crypto.random_bytes(crypto.KEY_BYTES), now)
    return replace(key, versions={**key.versions, key.latest + 1: version})


def with_minimum(key: Key, minimum: int) -> Key:
    """The same key, of which versions below ``minimum`` decrypt nothing; their material stays.

    Raises VersionRefused when there is no such version.
    """
    if minimum not in key.versions:
        raise VersionRefused(
            f"the key has no version {minimum}",
            f"it has versions {min(key.versions)} to {key.latest}",
            "kluis key list shows the keys",
        )
    return replace(key, minimum=minimum)


def joined(old: Key, new: Key) -> Key | None:
    """``old`` with the versions that only ``new`` has; None when they are different keys.

    They are the same when they share a version and differ in none: then nothing is lost.
    """
    shared = old.versions.keys() & new.versions.keys()
    alike = (crypto.same(old.versions[n].material, new.versions[n].material) for n in shared)
    if old.kind != new.kind or not shared or not all(alike):
        return None
    return replace(old, versions={**new.versions, **old.versions})


class TransitKey:
    """A ``transit`` key ready for use; the ciphers of all its versions are set up once."""

    def __init__(self, key: Key) -> None:
        self.latest = key.latest
        self.minimum = key.minimum
        self.created = {number: version.created for number, version in key.versions.items()}
        self._ciphers = {
            number: crypto.Aead(version.material) for number, version in key.versions.items()
        }

    def encrypt(self, plaintext: bytes, aad: bytes | None = None) -> str:
        """A ciphertext under the latest version."""
        sealed = self._ciphers[self.latest].seal(plaintext, aad)
        return f"vault:v{self.latest}:{binascii.b2a_base64(sealed, newline=False).decode('ascii')}"

    def decrypt(self, ciphertext: str, aad: bytes | None = None) -> tuple[bytes, int]:
        """The plaintext and the version that made it. Raises BadCiphertext, VersionRefused."""
        version, sealed = read_ciphertext(ciphertext)
        cipher = self._ciphers.get(version)
        if cipher is None or version < self.minimum:
            raise VersionRefused(
                f"version {version} of the key is refused",
                f"versions {self.minimum} to {self.latest} decrypt",
                "the ciphertext is of another key, or its version was retired",
            )
        try:
            return cipher.open(sealed, aad), version
        except TagMismatch:
            raise BadCiphertext(
                "the ciphertext does not verify",
                "it was made by another key, with other associated data, or is damaged",
                "check that the server points at the key that sealed it",
            ) from None


def read_ciphertext(ciphertext: str) -> tuple[int, bytes]:
    """The version and the bytes of a Transit ciphertext. Raises BadCiphertext."""
    parts = ciphertext.split(":")
    if len(parts) == 3 and parts[0] == "vault" and parts[1].startswith("v"):
        number = parts[1][1:]
        if number.isascii() and number.isdigit() and len(number) <= 5 and number[0] != "0":
            try:
                return int(number), base64.b64decode(parts[2], validate=True)
            except (binascii.Error, ValueError):
                pass
    raise BadCiphertext(
        "not a Transit ciphertext",
        "one reads vault:v<version>:<base64>",
        "send the ciphertext as it was given",
    )

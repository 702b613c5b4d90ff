"""The primitives, and nothing else: the only module that imports them.

AES-256-GCM (NIST SP 800-38D), HKDF-SHA-256 (RFC 5869), Argon2id (RFC 9106), SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kluis.errors import TagMismatch

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


def random_bytes(count: int) -> bytes:
    """Bytes from the operating system's generator."""
    return secrets.token_bytes(count)


def new_nonce() -> bytes:
    """A random nonce of 96 bits."""
    return secrets.token_bytes(NONCE_BYTES)


class Aead:
    """AES-256-GCM under one key of 32 bytes."""

    __slots__ = ("_gcm",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"AES-256 takes {KEY_BYTES} bytes, not {len(key)}")
        self._gcm = AESGCM(key)

    def seal(self, plaintext: bytes, aad: bytes | None, nonce: bytes | None = None) -> bytes:
        """The nonce (12 bytes), the ciphertext, and the tag (16 bytes), in one.

        Without a ``nonce`` a fresh one is drawn; one that is given must never be used twice.
        """
        nonce = new_nonce() if nonce is None else nonce
        return nonce + self._gcm.encrypt(nonce, plaintext, aad)

    def open(self, sealed: bytes, aad: bytes | None) -> bytes:
        """The plaintext of what ``seal`` gave. Raises TagMismatch."""
        try:
            return self._gcm.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):  # ValueError: shorter than nonce and tag
            raise TagMismatch("the tag does not fit", "another key or context, or damage") from None


def hkdf(secret: bytes, salt: bytes, info: str) -> bytes:
    """A key of 32 bytes for one purpose, derived from a secret of full entropy."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt, info.encode("ascii")).derive(secret)


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """What one guess of a passphrase costs."""

    memory_kib: int
    iterations: int
    lanes: int


def argon2id(passphrase: bytes, salt: bytes, cost: Argon2Cost) -> bytes:
    """A key of 32 bytes from something a person remembers."""
    kdf = Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    return kdf.derive(passphrase)


def sha256(data: bytes) -> bytes:
    """The SHA-256 digest, 32 bytes."""
    return hashlib.sha256(data).digest()


def same(a: bytes, b: bytes) -> bool:
    """Whether two byte strings are equal, in constant time for equal lengths."""
    return hmac.compare_digest(a, b)

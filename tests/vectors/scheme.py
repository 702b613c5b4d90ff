"""The format a second time, from docs/FORMAT.md alone: the vectors don't come from kluis itself.

Nothing here imports kluis. All randomness comes from a label, so that a vector is the same
whenever it is made. The keys and secrets are for tests; they guard nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import shamir_mnemonic.shamir
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from shamir_mnemonic import Share, generate_mnemonics

JSON = None | bool | int | str | Sequence["JSON"] | Mapping[str, "JSON"]
Object = dict[str, JSON]

ARGON2: Final = {"memory_kib": 64, "iterations": 1, "lanes": 1}


class Stream:
    """Bytes that follow from a label alone: SHA-256 of the label and a counter."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._counter = 0
        self._left = b""

    def __call__(self, count: int) -> bytes:
        while len(self._left) < count:
            self._left += hashlib.sha256(f"{self._label}#{self._counter}".encode()).digest()
            self._counter += 1
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def canonical(value: JSON) -> bytes:
    """RFC 8785 for values whose member names are ASCII and whose numbers are whole."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def times(a: int, b: int) -> int:
    """The product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, bit by bit."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def split(secret: bytes, threshold: int, shares: int, random: Stream) -> list[bytes]:
    """Shares at x = 1, 2, …: the secret is the constant term of each byte's polynomial."""
    coefficients = [secret] + [random(len(secret)) for _ in range(threshold - 1)]
    result = []
    for x in range(1, shares + 1):
        value, power = bytes(len(secret)), 1
        for coefficient in coefficients:
            value = bytes(v ^ times(c, power) for v, c in zip(value, coefficient, strict=True))
            power = times(power, x)
        result.append(value)
    return result


def hkdf(secret: bytes, salt: bytes, info: str) -> bytes:
    """HKDF-SHA-256 for one block of output (RFC 5869)."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info.encode() + b"\x01", "sha256")


def context(document: Mapping[str, JSON], path: str, kind: str) -> bytes:
    return f"kluis/1|{document['id']}|{document['epoch']}|{path}|{kind}".encode()


def seal_static(key: bytes, secret: bytes, bound: bytes, random: Stream) -> Object:
    salt, nonce = random(32), random(12)
    box = AESGCM(hkdf(key, salt, "kluis anchor/1 static")).encrypt(nonce, secret, bound)
    return {"salt": b64(salt), "box": b64(nonce + box)}


def seal_passphrase(passphrase: str, secret: bytes, bound: bytes, random: Stream) -> Object:
    salt, nonce = random(32), random(12)
    key = Argon2id(
        salt=salt,
        length=32,
        iterations=ARGON2["iterations"],
        lanes=ARGON2["lanes"],
        memory_cost=ARGON2["memory_kib"],
    ).derive(passphrase.encode())
    box = AESGCM(key).encrypt(nonce, secret, bound)
    return {"salt": b64(salt), **ARGON2, "box": b64(nonce + box)}


@contextmanager
def _slip39_random(random: Stream) -> Iterator[None]:
    kept = shamir_mnemonic.shamir.RANDOM_BYTES
    shamir_mnemonic.shamir.RANDOM_BYTES = random
    try:
        yield
    finally:
        shamir_mnemonic.shamir.RANDOM_BYTES = kept


def paper(
    secret: bytes,
    threshold: int,
    shares: int,
    random: Stream,
    exponent: int = 1,
    extendable: bool = True,
) -> list[str]:
    """The mnemonics of a set: one group, an empty passphrase."""
    with _slip39_random(random):
        groups = generate_mnemonics(
            1, [(threshold, shares)], secret, b"", extendable, iteration_exponent=exponent
        )
    return [str(mnemonic) for mnemonic in groups[0]]


def identifier(mnemonic: str) -> int:
    return int(Share.from_mnemonic(mnemonic).identifier)


def seal_body(document: Object, root: bytes, plaintext: bytes, random: Stream) -> Object:
    """The document with its body: the associated data is all of it but the ciphertext."""
    salt, nonce = random(32), random(12)
    draft: Object = {**document, "body": {"salt": b64(salt), "nonce": b64(nonce)}}
    key = hkdf(root, salt, "kluis keyring/1 body")
    ciphertext = AESGCM(key).encrypt(nonce, plaintext, canonical(draft))
    return {
        **draft,
        "body": {"salt": b64(salt), "nonce": b64(nonce), "ciphertext": b64(ciphertext)},
    }


def transit(key: bytes, version: int, plaintext: bytes, random: Stream) -> str:
    nonce = random(12)
    return f"vault:v{version}:{b64(nonce + AESGCM(key).encrypt(nonce, plaintext, None))}"

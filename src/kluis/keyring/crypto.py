"""The primitives, and nothing else: the only module that imports them.

AES-256-GCM (NIST SP 800-38D), HKDF-SHA-256 (RFC 5869), Argon2id (RFC 9106), SHA-256; ECDH on the
NIST curves (SEC 1), the Concat KDF of ECDH-ES (RFC 7518).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
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


def rsa_oaep(
    modulus: int, exponent: int, plaintext: bytes, digest: Literal["SHA-1", "SHA-256"]
) -> bytes:
    """RSAES-OAEP under a public key, MGF1 with the same digest, no label (RFC 8017, section 7.1).

    Raises ValueError for numbers that are no key, or a plaintext too long for it.
    """
    hash_ = hashes.SHA256() if digest == "SHA-256" else hashes.SHA1()  # noqa: S303 - OAEP is sound
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return public.encrypt(plaintext, padding.OAEP(padding.MGF1(hash_), hash_, None))


def sha256(data: bytes) -> bytes:
    """The SHA-256 digest, 32 bytes."""
    return hashlib.sha256(data).digest()


def same(a: bytes, b: bytes) -> bool:
    """Whether two byte strings are equal, in constant time for equal lengths."""
    return hmac.compare_digest(a, b)


@dataclass(frozen=True, slots=True)
class _Curve:
    """A curve, the prime of its field, the order of its group (NIST SP 800-186, section 3.2.1)."""

    curve: ec.EllipticCurve
    prime: int
    order: int
    digest: str  # that JWS signs with on this curve (RFC 7518, section 3.4)

    @property
    def coordinate_bytes(self) -> int:
        return (self.prime.bit_length() + 7) // 8


_CURVES: Final = {
    "P-256": _Curve(
        ec.SECP256R1(),
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,
        "sha256",
    ),
    "P-384": _Curve(
        ec.SECP384R1(),
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
        "sha384",
    ),
    "P-521": _Curve(
        ec.SECP521R1(),
        2**521 - 1,
        2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
        "sha512",
    ),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A point of P-256, P-384 or P-521; the coordinates are big-endian, of the field's length.

    Never the point at infinity. Raises ValueError for what is not on the curve; as the order of
    these curves is prime, what is on it is in no small subgroup.
    """

    curve: str
    x: bytes
    y: bytes

    def __post_init__(self) -> None:
        if self.curve not in _CURVES:
            raise ValueError("another curve than P-256, P-384 and P-521")
        size = _CURVES[self.curve].coordinate_bytes
        if (len(self.x), len(self.y)) != (size, size):
            raise ValueError(f"a coordinate of {self.curve} has {size} bytes")
        _public(self)


class Blinding:
    """A random factor r, used once, that hides a point from whoever multiplies it.

    ``hide`` gives X = r·P, which is a random point to everybody else. The other side answers
    Y = s·X, and ``lift`` gives the x coordinate of r⁻¹·Y = s·P (McCallum and Relyea). ECDH gives
    x coordinates only, so X may as well be -r·P: the sign is lost again at the end.
    """

    __slots__ = ("_curve", "_key")

    def __init__(self, curve: str) -> None:
        self._curve = curve
        self._key = ec.generate_private_key(_CURVES[curve].curve)

    def hide(self, point: Point) -> Point:
        """r·P, or -r·P. Raises ValueError for a point of another curve."""
        return _point(self._curve, self._key.exchange(ec.ECDH(), _public(point)))

    def lift(self, answer: Point) -> bytes:
        """The x coordinate of r⁻¹·Y. Raises ValueError for a point of another curve."""
        curve = _CURVES[self._curve]
        inverse = pow(self._key.private_numbers().private_value, -1, curve.order)
        return ec.derive_private_key(inverse, curve.curve).exchange(ec.ECDH(), _public(answer))


def concat_kdf(
    shared: bytes,
    algorithm: str,
    party_u: bytes,
    party_v: bytes = b"",
    key_bytes: int = KEY_BYTES,
) -> bytes:
    """The key that a direct ECDH-ES agrees upon (RFC 7518, section 4.6.2)."""
    parts = (algorithm.encode("ascii"), party_u, party_v)
    info = b"".join(len(part).to_bytes(4) + part for part in parts) + (8 * key_bytes).to_bytes(4)
    return ConcatKDFHash(hashes.SHA256(), key_bytes, info).derive(shared)


def ecdsa_signers(curve: str, message: bytes, signature: bytes) -> tuple[Point, ...]:
    """The two keys that alone can have made a signature r ‖ s of JWS (SEC 1, section 4.1.6).

    For where only a key's digest is known: the caller picks by it, and verifies as ever. None for
    what no key signed. All of this is public, so its time may depend on it.
    """
    known = _CURVES[curve]
    half = known.coordinate_bytes
    r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    hashed = int.from_bytes(hashlib.new(known.digest, message).digest())
    try:
        inverse = pow(r, -1, known.order)
        base = _multiple(known, -hashed * inverse).public_key()
        nonce = _point(curve, signature[:half])
        shared = _multiple(known, s * inverse).exchange(ec.ECDH(), _public(nonce))
        part = _public(_point(curve, shared))
        return tuple(_chord(curve, base, part, sign) for sign in (1, -1))
    except ValueError:  # r or s is 0, or r is no x coordinate
        return ()


def _public(point: Point) -> ec.EllipticCurvePublicKey:
    x, y = int.from_bytes(point.x), int.from_bytes(point.y)
    return ec.EllipticCurvePublicNumbers(x, y, _CURVES[point.curve].curve).public_key()


def _point(curve: str, x: bytes) -> Point:
    """One of the two points with this x coordinate. Raises ValueError where there is none."""
    key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve].curve, b"\x02" + x)
    return Point(curve, x, key.public_numbers().y.to_bytes(len(x)))


def _multiple(curve: _Curve, scalar: int) -> ec.EllipticCurvePrivateKey:
    """A public number as a scalar. Raises ValueError for 0."""
    return ec.derive_private_key(scalar % curve.order, curve.curve)


def _chord(
    curve: str, one: ec.EllipticCurvePublicKey, other: ec.EllipticCurvePublicKey, sign: int
) -> Point:
    """The sum of two public points, or their difference: the one thing no ECDH gives.

    Raises ValueError where they have the same x coordinate.
    """
    prime, size = _CURVES[curve].prime, _CURVES[curve].coordinate_bytes
    a, b = one.public_numbers(), other.public_numbers()
    slope = (a.y - sign * b.y) * pow(a.x - b.x, -1, prime) % prime
    x = (slope * slope - a.x - b.x) % prime
    y = (slope * (a.x - x) - a.y) % prime
    return Point(curve, x.to_bytes(size), y.to_bytes(size))

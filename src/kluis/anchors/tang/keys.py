"""What a Tang server advertises: a JWS (RFC 7515) over the set of its public keys (RFC 7517).

Every signing key in the set must have signed it. That alone proves nothing of who made it; the
pinned thumbprint does (S256, RFC 7638). Its key must have signed too: as one of the set, or as
one that was rotated out. With such a key a Tang server still signs what it gives out under
``/adv/{thumbprint}``, and does not send it. So it is computed from its signature; it counts only
if its thumbprint is the pinned one and the signature verifies with it.

No network here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from jwcrypto.common import JWException
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from kluis.errors import DocumentError, Misconfigured, Refused
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, Fields, read_json

MAX_ADVERTISEMENT_BYTES: Final = 1 << 16
MAX_KEYS: Final = 32
THUMBPRINT: Final = r"[A-Za-z0-9_-]{43}"

_SIGNING: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_EXCHANGE: Final = "ECMR"
_CURVE: Final = "P-256|P-384|P-521"
_BASE64URL: Final = "[A-Za-z0-9_-]*"


@dataclass(frozen=True, slots=True)
class Key:
    """A public key; ``algorithm`` is ECMR for an exchange key, or what it signs with."""

    point: crypto.Point
    algorithm: str

    @property
    def jwk(self) -> JWK:
        """The key for jwcrypto."""
        x, y = to_base64url(self.point.x), to_base64url(self.point.y)
        return JWK(kty="EC", crv=self.point.curve, x=x, y=y)

    @property
    def thumbprint(self) -> str:
        """The SHA-256 of its canonical form, 43 characters (RFC 7638)."""
        return str(self.jwk.thumbprint())


@dataclass(frozen=True, slots=True)
class _Signature:
    """One signature, and its header, as they came."""

    protected: str
    signature: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class Advertisement:
    """The keys of a server. ``read_advertisement`` has verified it with its own signing keys."""

    signing: tuple[Key, ...]
    exchange: tuple[Key, ...]
    payload: str
    signatures: tuple[_Signature, ...]

    def advertises(self, thumbprint: str) -> bool:
        """Whether it is that of one of its signing keys."""
        return any(key.thumbprint == thumbprint for key in self.signing)

    def vouched_by(self, thumbprint: str) -> bool:
        """Whether the signing key of this thumbprint signed, be it rotated out or not."""
        if self.advertises(thumbprint):
            return True
        return any(
            key.thumbprint == thumbprint and self.signed_by(key) for key in self._possible_signers()
        )

    def signed_by(self, key: Key) -> bool:
        """Whether one of the signatures verifies with this key."""
        return any(self._verifies(key, signature) for signature in self.signatures)

    def _verifies(self, key: Key, signature: _Signature) -> bool:
        flattened = {
            "payload": self.payload,
            "protected": signature.protected,
            "signature": signature.signature,
        }
        try:
            JWS().deserialize(json.dumps(flattened), key.jwk, key.algorithm)
        except JWException:
            return False
        return True

    def _possible_signers(self) -> Iterator[Key]:
        for one in self.signatures:
            if one.algorithm in _SIGNING:
                signed = f"{one.protected}.{self.payload}".encode("ascii")
                curve, signature = _SIGNING[one.algorithm], from_base64url(one.signature)
                for point in crypto.ecdsa_signers(curve, signed, signature):
                    yield Key(point, one.algorithm)


def read_advertisement(content: bytes) -> Advertisement:
    """The advertisement in these bytes, in either JSON form of JWS.

    Raises Misconfigured for what is none, Refused for one that a key of its own did not sign.
    """
    try:
        found = _parsed(content)
    except (DocumentError, ValueError):
        raise not_tang("what it advertises is not a signed set of keys") from None
    if not found.signing:
        raise not_tang("it advertises no signing key")
    for key in found.signing:
        if not found.signed_by(key):
            raise Refused(
                f"the advertisement is not signed by the key {key.thumbprint} that it names",
                "it was changed on the way, or the server's keys are damaged",
                "compare with what tang-show-keys prints on the server itself",
            )
    return found


def not_tang(seen: str) -> Misconfigured:
    """The error for an answer that no Tang server gives."""
    return Misconfigured(
        seen,
        "another service answers there, or a Tang server that kluis does not know",
        "check url: curl URL/adv has to print a JWS",
    )


def point_in(fields: Fields) -> crypto.Point:
    """The point in a JWK (RFC 7518, section 6.2). Raises DocumentError or ValueError."""
    fields.text("kty", "EC")
    curve = fields.text("crv", _CURVE)
    x, y = (from_base64url(fields.text(name, _BASE64URL)) for name in ("x", "y"))
    return crypto.Point(curve, x, y)


def to_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def from_base64url(text: str) -> bytes:
    """The bytes, if this is the one form that stands for them. Raises ValueError."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if to_base64url(data) != text:
        raise ValueError("not base64url, or not the canonical form")
    return data


def _parsed(content: bytes) -> Advertisement:
    if len(content) > MAX_ADVERTISEMENT_BYTES:
        raise not_tang(f"it advertises more than {MAX_ADVERTISEMENT_BYTES} bytes")
    token = Fields(read_json(content), "the advertisement")
    payload = token.text("payload", _BASE64URL, MAX_ADVERTISEMENT_BYTES)
    if token.has("signatures"):
        # one more than keys: that of a key that was rotated out
        signed = [Fields(one, "a signature") for one in token.items("signatures", MAX_KEYS + 1)]
    else:
        signed = [token]
    keys = Fields(read_json(from_base64url(payload)), "the keys").items("keys", MAX_KEYS)
    return Advertisement(
        signing=tuple(_signing_key(key) for key in keys if _may(key, "verify")),
        exchange=tuple(_exchange_key(key) for key in keys if _is_exchange_key(key)),
        payload=payload,
        signatures=tuple(_signature(one) for one in signed),
    )


def _signature(fields: Fields) -> _Signature:
    protected = fields.text("protected", _BASE64URL)
    header = read_json(from_base64url(protected))
    algorithm = Fields(header, "a signature's header").text("alg", "[A-Za-z0-9-]{1,32}")
    signature = fields.text("signature", _BASE64URL)
    from_base64url(signature)
    return _Signature(protected, signature, algorithm)


def _may(key: JSON, operation: str) -> bool:
    operations = key.get("key_ops") if isinstance(key, dict) else None
    return isinstance(operations, list) and operation in operations


def _signing_key(key: JSON) -> Key:
    fields = Fields(key, "a signing key")
    algorithm = fields.text("alg", "[A-Za-z0-9-]{1,32}")
    if algorithm not in _SIGNING:
        raise not_tang(f"it signs with {algorithm}: kluis checks ES256, ES384 and ES512")
    point = point_in(fields)
    if point.curve != _SIGNING[algorithm]:
        raise not_tang(f"it signs with {algorithm} and a key of {point.curve}")
    return Key(point, algorithm)


def _is_exchange_key(key: JSON) -> bool:
    return isinstance(key, dict) and _may(key, "deriveKey") and key.get("alg") == _EXCHANGE


def _exchange_key(key: JSON) -> Key:
    return Key(point_in(Fields(key, "an exchange key")), _EXCHANGE)

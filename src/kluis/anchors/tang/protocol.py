"""What is sealed to a Tang server, and how it helps to open that without learning it.

Sealed is a JWE in compact form (RFC 7516): ``ECDH-ES`` and ``A256GCM`` to the server's exchange
key S = s·G, by a fresh point E = e·G. Its protected header, which its tag covers, says

    alg, enc, epk = E, kid = the thumbprint of S, apu = SHA-256 of the context

The key is derived from the x coordinate of s·E. To have it again without s, a random multiple of
E is sent to the server, never E itself: see ``crypto.Blinding``.

No network here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

from jwcrypto.jwe import JWE

from kluis.anchors.tang.keys import (
    THUMBPRINT,
    Key,
    from_base64url,
    not_tang,
    point_in,
    to_base64url,
)
from kluis.errors import Damaged, DocumentError, Refused, TagMismatch
from kluis.keyring import crypto
from kluis.keyring.strict import Fields, canonical, read_json
from kluis.secret import SECRET_BYTES, Secret

MAX_JWE_BYTES: Final = 4096
MAX_ANSWER_BYTES: Final = 4096

_ALGORITHM: Final = "ECDH-ES"
_ENCRYPTION: Final = "A256GCM"
_DIGEST_BYTES: Final = 32


def seal(secret: Secret, context: bytes, key: Key) -> bytes:
    """A secret, bound to a context, for the server that has this exchange key."""
    header = {
        "alg": _ALGORITHM,
        "enc": _ENCRYPTION,
        "kid": key.thumbprint,
        "apu": to_base64url(crypto.sha256(context)),
    }
    token = JWE(secret.reveal(), protected=header, recipient=key.jwk)
    return str(token.serialize(compact=True)).encode("ascii")


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a JWE says: whose key it was sealed to, for which context, by which point."""

    kid: str
    context_sha256: bytes
    ephemeral: crypto.Point
    protected: bytes
    box: bytes

    def refuse_other_context(self, context: bytes) -> None:
        """Raise Damaged when it was sealed for another context."""
        if not crypto.same(self.context_sha256, crypto.sha256(context)):
            raise Damaged(
                "this leaf was sealed for another place",
                "it was moved here from another keyring, or from elsewhere in this one",
                "once the keyring is open by another way, kluis apply seals it anew",
            )


def read_leaf(token: bytes) -> Leaf:
    """The leaf in a JWE. Raises Damaged or DocumentError."""
    try:
        protected, encrypted_key, nonce, ciphertext, tag = token.decode("ascii").split(".")
        header = Fields(read_json(from_base64url(protected)), "sealed.jwe")
        point = Fields(header.take("epk"), "sealed.jwe.epk")
        ephemeral = point_in(point)
        box = b"".join(map(from_base64url, (nonce, ciphertext, tag)))
        digest = from_base64url(header.text("apu", THUMBPRINT))
    except ValueError:
        _damaged()
    header.text("alg", _ALGORITHM)
    header.text("enc", _ENCRYPTION)
    kid = header.text("kid", THUMBPRINT)
    header.done()
    point.done()
    if encrypted_key or len(box) != crypto.NONCE_BYTES + SECRET_BYTES + crypto.TAG_BYTES:
        _damaged()
    return Leaf(kid, digest, ephemeral, protected.encode("ascii"), box)


def _damaged() -> NoReturn:
    raise Damaged(
        "the sealed bytes are not a JWE of the form that kluis writes",
        "the leaf was damaged, or written by another version",
        "once the keyring is open by another way, kluis apply seals it anew",
    )


class Recovery:
    """One opening of a leaf: a question to the server, made anew each time, and its answer."""

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf
        self._blinding = crypto.Blinding(leaf.ephemeral.curve)
        self._hidden = self._blinding.hide(leaf.ephemeral)

    @property
    def question(self) -> bytes:
        """The body for ``POST /rec/{kid}``: a JWK that is a random point."""
        return canonical(
            {
                "alg": "ECMR",
                "kty": "EC",
                "crv": self._hidden.curve,
                "x": to_base64url(self._hidden.x),
                "y": to_base64url(self._hidden.y),
            }
        )

    def secret(self, answer: bytes) -> Secret:
        """What the leaf holds, by the server's answer.

        Raises Misconfigured for an answer that is no key, Refused for one that is no point that
        a Tang server could give, Damaged when it does not open the leaf.
        """
        shared = self._blinding.lift(self._point(answer))
        key = crypto.concat_kdf(shared, _ENCRYPTION, self._leaf.context_sha256)
        try:
            return Secret(crypto.Aead(key).open(self._leaf.box, self._leaf.protected))
        except TagMismatch:
            raise Damaged(
                "what the server answers does not open this leaf",
                "the leaf is damaged; or something else answers in the server's place",
                "once the keyring is open by another way, kluis apply seals it anew",
            ) from None

    def _point(self, answer: bytes) -> crypto.Point:
        try:
            if len(answer) > MAX_ANSWER_BYTES:
                raise ValueError("longer than any key")
            fields = Fields(read_json(answer), "the answer")
        except (DocumentError, ValueError):
            raise not_tang("its answer to a recovery is not a key") from None
        try:
            point = point_in(fields)
        except (DocumentError, ValueError):
            point = None
        if point is None or point.curve != self._hidden.curve or point.x == self._hidden.x:
            raise Refused(
                "its answer to a recovery is not a point that a Tang server gives",
                "something between changes its answers, or the server is damaged",
                "open by another way, and look at the server and at what stands before it",
            )
        return point

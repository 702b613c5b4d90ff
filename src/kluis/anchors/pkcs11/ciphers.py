"""What a token does with a key: AES-GCM, or RSA-OAEP with the context inside the plaintext.

RSA encrypts here, outside: smart cards and OpenSC only decrypt. The public numbers are those of
the private key, which nobody forges without the PIN; a public key in the token is not asked.

    AES-GCM           box = nonce (12) ciphertext (32) tag (16); the AAD is ``bound``
    RSA-OAEP          box = RSAES-OAEP of secret (32) and SHA-256(bound) (32); SHA-256 and MGF1
    RSA-OAEP-SHA1     the same with SHA-1 and its MGF1, for tokens that have no other

OAEP needs no collision resistance of its hash, so SHA-1 is no weakness here that is known; it is a
mechanism of its own all the same, so that nobody gets it unasked. Tokens differ in whether they
take OAEP's label, so that stays empty.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import pkcs11
from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import MGF, GCMParams, KeyType, Mechanism
from pkcs11.types import DecryptMixin, EncryptMixin

from kluis.anchors.pkcs11 import faults
from kluis.anchors.pkcs11.keys import OTHERWISE, Key
from kluis.errors import Damaged, Misconfigured
from kluis.keyring import crypto
from kluis.secret import SECRET_BYTES, Secret

AES_BITS: Final = 256
RSA_BITS: Final = 3072
_LEAST_RSA_BITS: Final = 2048
_MOST_RSA_BITS: Final = 8192
_EXPONENT: Final = 65537
_BOTH_WAYS: Final = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT


@dataclass(frozen=True)
class Cipher(ABC):
    """One mechanism. ``number`` stands for it in a leaf, ``name`` in the settings."""

    number: int
    name: str

    key_class: ClassVar[ObjectClass]
    key_type: ClassVar[KeyType]
    mechanism: ClassVar[Mechanism]
    least_box_bytes: ClassVar[int]
    most_box_bytes: ClassVar[int]

    @abstractmethod
    def encrypt(self, key: Key, secret: bytes, bound: bytes) -> bytes:
        """A box with a secret of 32 bytes. Raises PKCS11Error, Misconfigured."""

    @abstractmethod
    def decrypt(self, key: Key, box: bytes, bound: bytes) -> bytes | None:
        """What is in a box; None where it is bound to something else. Raises PKCS11Error."""

    @abstractmethod
    def make(self, session: pkcs11.Session, id_: bytes, label: str) -> None:
        """A new key that can't leave the token. Raises PKCS11Error."""

    def check_key(self, key: Key) -> None:
        """Raise Misconfigured unless the key's usage and size are right."""
        if not isinstance(key.object, DecryptMixin):
            raise _not_allowed(key, "decrypt")

    def check_token(self, session: pkcs11.Session, key: Key) -> None:  # noqa: ARG002 - RSA's needs it
        """Raise Misconfigured unless the token has the mechanism."""
        if self.mechanism not in session.token.slot.get_mechanisms():
            raise Misconfigured(
                f"token {session.token.label!r} has no {self.mechanism.name}",
                "its maker left it out, or it is switched off there",
                "choose another mechanism; kluis anchor show lists those that it has",
            )

    def open(self, key: Key, box: bytes, bound: bytes) -> Secret:
        """The secret of a box. Raises Damaged, Misconfigured, PKCS11Error."""
        try:
            secret = self.decrypt(key, box, bound)
        except (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange):
            secret = None
        except pkcs11.PKCS11Error as error:
            # for a wrong tag some tokens give the code of a fault: only a trial tells them apart
            if type(error) in faults.GONE or not self._works(key):
                raise
            secret = None
        if secret is None or len(secret) != SECRET_BYTES:
            raise Damaged(
                f"{key} does not open this leaf",
                "the leaf is damaged or another keyring's, or the key was replaced under its id",
                "once the keyring is open by another way, kluis apply seals it anew",
            )
        return Secret(secret)

    def _works(self, key: Key) -> bool:
        trial = crypto.random_bytes(SECRET_BYTES)
        try:
            return self.decrypt(key, self.encrypt(key, trial, b""), b"") == trial
        except pkcs11.PKCS11Error:
            return False


class AesGcm(Cipher):
    """AES-GCM (SP 800-38D) in the token, with a nonce of 96 bits made here."""

    key_class = ObjectClass.SECRET_KEY
    key_type = KeyType.AES
    mechanism = Mechanism.AES_GCM
    least_box_bytes = most_box_bytes = crypto.NONCE_BYTES + SECRET_BYTES + crypto.TAG_BYTES

    def encrypt(self, key: Key, secret: bytes, bound: bytes) -> bytes:
        """See Cipher."""
        nonce = crypto.new_nonce()
        return nonce + _encrypted(key.object, secret, self.mechanism, GCMParams(nonce, bound))

    def decrypt(self, key: Key, box: bytes, bound: bytes) -> bytes | None:
        """See Cipher."""
        nonce, rest = box[: crypto.NONCE_BYTES], box[crypto.NONCE_BYTES :]
        return _decrypted(key, rest, self.mechanism, GCMParams(nonce, bound))

    def check_key(self, key: Key) -> None:
        """See Cipher."""
        super().check_key(key)
        if not isinstance(key.object, EncryptMixin):
            raise _not_allowed(key, "encrypt")

    def make(self, session: pkcs11.Session, id_: bytes, label: str) -> None:
        """See Cipher."""
        session.generate_key(
            self.key_type,
            AES_BITS,
            id=id_,
            label=label,
            store=True,
            capabilities=_BOTH_WAYS,
            template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )


@dataclass(frozen=True)
class RsaOaep(Cipher):
    """RSAES-OAEP (RFC 8017, section 7.1); the digest of ``bound`` does the work of its label."""

    digest: Literal["SHA-1", "SHA-256"]
    hash: Mechanism
    mgf: MGF

    key_class = ObjectClass.PRIVATE_KEY
    key_type = KeyType.RSA
    mechanism = Mechanism.RSA_PKCS_OAEP
    least_box_bytes = _LEAST_RSA_BITS // 8
    most_box_bytes = _MOST_RSA_BITS // 8

    def encrypt(self, key: Key, secret: bytes, bound: bytes) -> bytes:
        """See Cipher. Outside the token: OpenSC and most smart cards only decrypt."""
        exponent = int.from_bytes(key.read(Attribute.PUBLIC_EXPONENT) or b"", "big") or _EXPONENT
        modulus = int.from_bytes(key.modulus, "big")
        try:
            return crypto.rsa_oaep(modulus, exponent, secret + crypto.sha256(bound), self.digest)
        except ValueError:
            raise Misconfigured(
                f"the public numbers of {key} can't encrypt",
                "the token gives no modulus of it, or one that is none",
                OTHERWISE,
            ) from None

    def decrypt(self, key: Key, box: bytes, bound: bytes) -> bytes | None:
        """See Cipher."""
        try:
            plaintext = _decrypted(key, box, self.mechanism, self._parameters)
        except (pkcs11.ArgumentsBad, pkcs11.MechanismParamInvalid):
            raise Misconfigured(
                f"token {key.object.session.token.label!r} has no {self.name}",
                "it has OAEP, but not with this hash",
                'mechanism = "RSA-OAEP" takes SHA-256, "RSA-OAEP-SHA1" SHA-1: try the other',
            ) from None
        secret, digest = plaintext[:SECRET_BYTES], plaintext[SECRET_BYTES:]
        return secret if crypto.same(digest, crypto.sha256(bound)) else None

    def check_key(self, key: Key) -> None:
        """See Cipher."""
        super().check_key(key)
        if not _LEAST_RSA_BITS <= key.bits <= _MOST_RSA_BITS:
            raise Misconfigured(
                f"{key} is an RSA key of {key.bits} bits",
                f"kluis takes {_LEAST_RSA_BITS} to {_MOST_RSA_BITS}",
                OTHERWISE,
            )

    def check_token(self, session: pkcs11.Session, key: Key) -> None:
        """See Cipher. Opens a trial, which shows whether the token has the hash."""
        super().check_token(session, key)
        self.decrypt(key, self.encrypt(key, bytes(SECRET_BYTES), b""), b"")

    def make(self, session: pkcs11.Session, id_: bytes, label: str) -> None:
        """See Cipher."""
        session.generate_keypair(
            self.key_type,
            RSA_BITS,
            id=id_,
            label=label,
            store=True,
            capabilities=_BOTH_WAYS,
            private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )

    @property
    def _parameters(self) -> tuple[Mechanism, MGF, None]:
        return self.hash, self.mgf, None


CIPHERS: Final[tuple[Cipher, ...]] = (
    AesGcm(1, "AES-GCM"),
    RsaOaep(2, "RSA-OAEP", "SHA-256", Mechanism.SHA256, MGF.SHA256),
    RsaOaep(3, "RSA-OAEP-SHA1", "SHA-1", Mechanism.SHA_1, MGF.SHA1),
)


def _encrypted(key: pkcs11.Object, plaintext: bytes, mechanism: Mechanism, how: Any) -> bytes:
    if not isinstance(key, EncryptMixin):
        raise _not_allowed(key, "encrypt")
    return _whole(key.encrypt(plaintext, mechanism=mechanism, mechanism_param=how))


def _decrypted(key: Key, ciphertext: bytes, mechanism: Mechanism, how: Any) -> bytes:
    if not isinstance(key.object, DecryptMixin):
        raise _not_allowed(key, "decrypt")
    return _whole(key.object.decrypt(ciphertext, mechanism=mechanism, mechanism_param=how))


def _whole(answer: object) -> bytes:
    if not isinstance(answer, bytes):  # python-pkcs11 answers in pieces where it was asked so
        raise pkcs11.DataInvalid
    return answer


def _not_allowed(key: object, what: str) -> Misconfigured:
    return Misconfigured(
        f"{key} may not {what}",
        f"it was made without CKA_{what.upper()}",
        OTHERWISE,
    )

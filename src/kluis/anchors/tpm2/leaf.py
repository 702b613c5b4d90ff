"""What a TPM sealed: how it lies in the document, and what guards it. No TPM here.

    sealed = {"public": TPM2B_PUBLIC, "private": TPM2B_PRIVATE, both as tpm2_load takes them,
              "primary": name of the storage key that it is sealed under, 34 bytes}
    and under PCRs also what tpm2_pcrs.py says

Bytes are in base64. The sealed data is secret (32) SHA-256 of the context (32), for a TPM has no
associated data. The guard is part of the public area, which the TPM ties to the private one: a PIN
is the object's auth value, with the protection against guessing on (noDA clear); PCRs are its
authPolicy. So what the document says of PCRs is proven before it is believed.

References: TPM 2.0 Library, part 2 (12.2.4) and part 3 (TPM2_PolicyAuthValue).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from kluis.anchors.tpm2.pcrs import Pcrs, named, read_pcrs
from kluis.errors import Damaged
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, Fields, to_base64
from kluis.secret import SECRET_BYTES, Secret

NAME_BYTES: Final = 34  # TPM_ALG_ID, SHA-256 digest

_MAX_AREA_BYTES: Final = 512

_ALG_KEYEDHASH: Final = 0x0008
_ALG_SHA256: Final = 0x000B
_ALG_NULL: Final = 0x0010
_FIXED_TPM_AND_PARENT: Final = 1 << 1 | 1 << 4
_USER_WITH_AUTH: Final = 1 << 6
_NO_DA: Final = 1 << 10
_CC_POLICY_AUTH_VALUE: Final = 0x016B
_UNIQUE_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Guard:
    """What the TPM demands before it unseals."""

    pin: bool
    pcrs: Pcrs | None

    def policy(self) -> bytes:
        """The object's authPolicy; empty when no PCR counts."""
        if self.pcrs is None:
            return b""
        digest = self.pcrs.policy()
        if self.pin:
            digest = crypto.sha256(digest + struct.pack(">I", _CC_POLICY_AUTH_VALUE))
        return digest

    def template(self) -> bytes:
        """The TPM2B_PUBLIC of an object so guarded, before the TPM filled in ``unique``."""
        return self._public(b"")

    def made(self, public: bytes) -> bool:
        """Whether a TPM2B_PUBLIC is of an object so guarded, and nothing else."""
        return public == self._public(public[-_UNIQUE_BYTES:])

    def _public(self, unique: bytes) -> bytes:
        attributes = _FIXED_TPM_AND_PARENT
        attributes |= 0 if self.pin else _NO_DA
        attributes |= _USER_WITH_AUTH if self.pcrs is None else 0  # else the policy alone decides
        area = struct.pack(">HHI", _ALG_KEYEDHASH, _ALG_SHA256, attributes)
        return _sized(area + _sized(self.policy()) + struct.pack(">H", _ALG_NULL) + _sized(unique))

    def lacks(self, *, pin: bool, bank: str, pcrs: Collection[int]) -> str:
        """How it differs from what the settings ask for, in words; empty when it does not."""
        if self.pin != pin:
            return _differs("a PIN", sealed=self.pin)
        mine = set(self.pcrs.numbers) if self.pcrs else set()
        if more := set(pcrs) - mine:
            return _differs(named(more), sealed=False)
        if fewer := mine - set(pcrs):
            return _differs(named(fewer), sealed=True)
        if self.pcrs and self.pcrs.bank != bank:
            return f"sealed to the PCRs of bank {self.pcrs.bank}, the settings name {bank}"
        return ""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A sealed object, and the name of the storage key that it is sealed under."""

    guard: Guard
    public: bytes
    private: bytes
    primary: bytes

    def for_document(self) -> dict[str, JSON]:
        """The members of ``sealed``."""
        members: dict[str, JSON] = {
            "public": to_base64(self.public),
            "private": to_base64(self.private),
            "primary": to_base64(self.primary),
        }
        if self.guard.pcrs is not None:
            members |= self.guard.pcrs.for_document()
        return members


def read_leaf(sealed: Mapping[str, JSON]) -> Leaf:
    """The leaf in a document. Raises Damaged or DocumentError."""
    fields = Fields(dict(sealed), "sealed")
    public = fields.base64("public", limit_bytes=_MAX_AREA_BYTES)
    private = fields.base64("private", limit_bytes=_MAX_AREA_BYTES)
    primary = fields.base64("primary", NAME_BYTES)
    pcrs = read_pcrs(fields) if fields.has("bank") else None
    fields.done()
    if private != _sized(private[2:]):
        _damaged("the private area is not whole")
    return Leaf(_guard_of(public, pcrs), public, private, primary)


def _guard_of(public: bytes, pcrs: Pcrs | None) -> Guard:
    for guard in (Guard(False, pcrs), Guard(True, pcrs)):
        if guard.made(public):
            return guard
    return _damaged("the public area is none that kluis makes, or other PCRs belong to it")


def bound(secret: Secret, context: bytes) -> bytes:
    """The data to seal: a secret, and what it is for."""
    return secret.reveal() + crypto.sha256(context)


def proven(data: bytes, context: bytes) -> Secret:
    """The secret in unsealed data. Raises Damaged when it was sealed for another context."""
    if not crypto.same(data[SECRET_BYTES:], crypto.sha256(context)):
        raise Damaged(
            "this leaf was sealed for another place",
            "it was moved here from another keyring, or from elsewhere in this one",
            "once the keyring is open by another way, kluis heal seals it anew",
        )
    return Secret(data[:SECRET_BYTES])


def _differs(what: str, *, sealed: bool) -> str:
    if sealed:
        return f"sealed under {what}, which the settings do not name"
    return f"sealed without {what}, the settings ask for it"


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _damaged(seen: str) -> NoReturn:
    raise Damaged(
        seen,
        "the leaf was damaged, or written by another version",
        "once the keyring is open by another way, kluis heal seals it anew",
    )

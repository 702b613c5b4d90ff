"""A seal key that is given once, in a file: how it is read, and how it is known again.

The file is read as the static seal of OpenBao reads one (measured on 2.7.2): its length picks the
decoding. Unlike there, one end of line is no part of it.

What is remembered of a key is a salted check value, which says nothing about a key of 256 bits. It
lies beside the keyring's document, as ``<keyring>.bootstrap``:

    {"kluis": "bootstrap/1", "keys": {name: {"salt": base64, "check": base64}}}
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kluis.anchors.sources import FileSource
from kluis.errors import Missing, UsageError
from kluis.keyring import crypto
from kluis.keyring.document import MAX_KEYS
from kluis.keyring.policy import KEY_NAME_PATTERN
from kluis.keyring.strict import JSON, Fields, canonical, read_canonical, to_base64
from kluis.secret import SECRET_BYTES, Secret

FORMAT: Final = "bootstrap/1"
MAX_RECORD_BYTES: Final = 512 * 1024
_INFO: Final = "kluis bootstrap/1 check"


def read(path: Path | None) -> Secret | None:
    """The key in a file; None where there is no file (any more).

    Others may read the file, for Kubernetes projects a Secret so, and nobody but its owner may
    write it. Raises AnchorError, or UsageError for what is not a key.
    """
    if path is None:
        return None
    try:
        return decode(FileSource(path).as_shared().read(), str(path))
    except Missing:
        return None


def decode(data: bytes, where: str) -> Secret:
    """The 32 bytes in what was given. Raises UsageError, which shows nothing of it."""
    if len(data) == SECRET_BYTES:  # the last of the raw bytes may well be that of a newline
        return Secret(data)
    text = data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        match len(text):
            case 32:
                return Secret(text)
            case 64:
                return Secret(binascii.unhexlify(text))
            case 44:
                return Secret(base64.b64decode(text, validate=True))
            case 43:
                return Secret(base64.b64decode(text + b"=", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        pass  # of the right length, and not in that form
    raise UsageError(
        f"{where} does not hold a seal key: {len(data)} bytes, or not in one of its forms",
        "a static seal takes 32 raw bytes, 64 digits in hex, or 44 (43) characters of base64",
        "make one: head -c 32 /dev/urandom",
    )


@dataclass(frozen=True, slots=True)
class Check:
    """Tells whether a key is the one that was given before."""

    salt: bytes
    value: bytes

    @classmethod
    def of(cls, key: Secret) -> Check:
        """The check value of a key, under a new salt."""
        salt = crypto.random_bytes(crypto.SALT_BYTES)
        return cls(salt, crypto.hkdf(key.reveal(), salt, _INFO))

    def fits(self, key: Secret) -> bool:
        """Whether it is that key."""
        return crypto.same(self.value, crypto.hkdf(key.reveal(), self.salt, _INFO))


def to_bytes(checks: Mapping[str, Check]) -> bytes:
    """The record of the keys that were given, by their names."""
    keys: dict[str, JSON] = {
        name: {"salt": to_base64(check.salt), "check": to_base64(check.value)}
        for name, check in checks.items()
    }
    return canonical({"kluis": FORMAT, "keys": keys})


def from_bytes(data: bytes) -> dict[str, Check]:
    """The checks in a record. Raises DocumentError."""
    fields = Fields(read_canonical(data, MAX_RECORD_BYTES), "the record")
    fields.text("kluis", FORMAT)
    checks = {
        name: _check(Fields(value, f"keys.{name}"))
        for name, value in fields.members("keys", KEY_NAME_PATTERN, MAX_KEYS)
    }
    fields.done()
    return checks


def _check(fields: Fields) -> Check:
    check = Check(
        fields.base64("salt", crypto.SALT_BYTES), fields.base64("check", crypto.KEY_BYTES)
    )
    fields.done()
    return check

"""What a transit anchor seals into, and what a Transit engine answers to encrypt and decrypt.

    sealed = {"ciphertext": what stands in base64 after ``vault:v<N>:``, "version": N}

The bytes are nonce (12, or 24), ciphertext (32) and tag (16).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from kluis.anchors.transit.api import member
from kluis.errors import Damaged
from kluis.keyring.strict import JSON, Fields, to_base64
from kluis.secret import SECRET_BYTES, Secret

LEAST_BYTES: Final = 12 + SECRET_BYTES + 16
MOST_BYTES: Final = 24 + SECRET_BYTES + 16
MAX_VERSION: Final = 99_999
_TEXT: Final = re.compile(r"vault:v([1-9][0-9]{0,4}):([A-Za-z0-9+/]{4,200}={0,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A ciphertext, and the version of the key that made it."""

    ciphertext: bytes
    version: int

    @classmethod
    def read(cls, sealed: Mapping[str, JSON]) -> Self:
        """A leaf of a document. Raises DocumentError or Damaged."""
        fields = Fields(dict(sealed), "sealed")
        leaf = cls(
            fields.base64("ciphertext", limit_bytes=MOST_BYTES),
            fields.integer("version", 1, MAX_VERSION),
        )
        fields.done()
        if len(leaf.ciphertext) < LEAST_BYTES:
            raise Damaged(
                f"the sealed bytes are {len(leaf.ciphertext)}, fewer than any key makes",
                "the leaf was damaged, or cut short",
                "once the keyring is open by another way, kluis heal seals it anew",
            )
        return leaf

    @classmethod
    def answered(cls, answer: Mapping[str, object]) -> Self | None:
        """What ``encrypt`` answered; None when that is no ciphertext of a secret."""
        text = member(answer, "data").get("ciphertext")
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        data = None if match is None else _decoded(match[2])
        if match is None or data is None or not LEAST_BYTES <= len(data) <= MOST_BYTES:
            return None
        return cls(data, int(match[1]))

    def sealed(self) -> dict[str, JSON]:
        """As it stands in a document."""
        return {"ciphertext": to_base64(self.ciphertext), "version": self.version}

    def text(self) -> str:
        """As a Transit engine takes it."""
        return f"vault:v{self.version}:{to_base64(self.ciphertext)}"


def plaintext(answer: Mapping[str, object]) -> bytes | None:
    """What ``decrypt`` answered; None when it is no plaintext."""
    text = member(answer, "data").get("plaintext")
    return _decoded(text) if isinstance(text, str) else None


def secret(data: bytes) -> Secret:
    """The secret that a plaintext has to be. Raises Damaged."""
    if len(data) != SECRET_BYTES:
        raise Damaged(
            f"the leaf opens, to {len(data)} bytes",
            "what was sealed there is no secret of a keyring",
            "once the keyring is open by another way, kluis heal seals it anew",
        )
    return Secret(data)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None

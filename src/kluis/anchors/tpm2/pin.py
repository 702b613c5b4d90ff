"""The PIN of a leaf in a TPM: how it gets there, and that no wrong one is tried twice.

A TPM counts wrong tries, and locks after a few of them. So a PIN that it refused for a leaf is
remembered as long as this process lives, salted and hashed. Another PIN, or a leaf that was sealed
anew, is tried again.
"""

from __future__ import annotations

import base64
import threading
from typing import Final

from kluis.anchors.sources import Source
from kluis.errors import Misconfigured
from kluis.keyring import crypto

_LABEL: Final = b"kluis anchor/1 tpm2 pin\0"
_MOST_REMEMBERED: Final = 4096


def auth_value(source: Source) -> bytes:
    """The auth value that stands for a PIN: 32 characters, of which 192 bits count.

    Hashed, for an auth value may not be longer; in text, for a TPM drops zeros at its end. Raises
    AnchorError.
    """
    pin = source.read().removesuffix(b"\n")
    if not pin:
        raise Misconfigured(
            f"{source} is empty",
            "a PIN of nothing guards nothing",
            "write the PIN into it; the end of the line does not count",
        )
    return base64.b64encode(crypto.sha256(_LABEL + pin)[:24])


class Refusals:
    """Which PIN was refused for which leaf. Threads may share it."""

    def __init__(self) -> None:
        self._salt = crypto.random_bytes(crypto.SALT_BYTES)
        self._known: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def add(self, private: bytes, auth: bytes) -> None:
        """Remember that the TPM refused ``auth`` for the leaf with this private area."""
        with self._lock:
            while len(self._known) >= _MOST_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[self._digest(private, auth)] = None

    def __contains__(self, pair: tuple[bytes, bytes]) -> bool:
        return self._digest(*pair) in self._known

    def _digest(self, private: bytes, auth: bytes) -> bytes:
        return crypto.sha256(self._salt + crypto.sha256(private) + auth)


REFUSED: Final = Refusals()
"""Of this process: anchors come and go as the settings are read anew."""

"""A secret of 32 bytes that never prints and is wiped when it is dropped.

Python may have copied the bytes elsewhere; docs/LIMITATIONS.md says what that means.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final, NoReturn

SECRET_BYTES: Final = 32


class Secret:
    """32 secret bytes. Compares in constant time; refuses to print, hash or pickle."""

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes | bytearray) -> None:
        if len(value) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(value)}")
        self._bytes = bytearray(value)

    @classmethod
    def random(cls) -> Secret:
        """A new secret from the operating system's generator."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    def reveal(self) -> bytes:
        """The bytes themselves, as a copy: for a primitive, never for a log or an error."""
        return bytes(self._bytes)

    def wipe(self) -> None:
        """Overwrite the bytes with zeros."""
        for i in range(SECRET_BYTES):
            self._bytes[i] = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._bytes, other._bytes)

    __hash__ = None  # type: ignore[assignment]  # a secret is not a dictionary key

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written anywhere")

    def __del__(self) -> None:
        if hasattr(self, "_bytes"):  # not set when __init__ refused the value
            self.wipe()

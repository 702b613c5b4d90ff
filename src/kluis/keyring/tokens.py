"""Client tokens: 256 random bits, known to the keyring only by their SHA-256.

A fast digest is right here: a token has full entropy and can't be guessed.
"""

from __future__ import annotations

import base64
from typing import Final

from kluis.keyring import crypto
from kluis.keyring.document import Client, Token

PREFIX: Final = "kluis_"
TOKEN_CHARS: Final = len(PREFIX) + 43


def generate(issued: str, expires: str | None = None) -> tuple[str, Token]:
    """A new token and what the keyring keeps of it; times are RFC 3339 in UTC."""
    text = PREFIX + base64.urlsafe_b64encode(crypto.random_bytes(32)).decode("ascii").rstrip("=")
    return text, Token(digest(text.encode("ascii")), issued, expires)


def digest(token: bytes) -> str:
    """The SHA-256 of a token, in hex."""
    return crypto.sha256(token).hex()


def last_expiry(client: Client) -> str | None:
    """When the last token of a client ends (RFC 3339, UTC); None while one of them never does."""
    ends = [token.expires for token in client.tokens if token.expires is not None]
    return max(ends) if ends and len(ends) == len(client.tokens) else None


def valid(client: Client, now: str) -> tuple[Token, ...]:
    """The tokens of a client that have not expired."""
    return tuple(t for t in client.tokens if t.expires is None or t.expires > now)

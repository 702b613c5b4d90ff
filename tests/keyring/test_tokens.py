"""Client tokens: nobody guesses them, and the keyring does not know them."""

from __future__ import annotations

import base64
import hashlib

import pytest

from kluis.keyring import tokens
from kluis.keyring.document import Client, Token

ISSUED = "2026-01-02T03:04:05Z"


def test_a_token_has_256_random_bits_and_is_kept_as_its_digest() -> None:
    text, token = tokens.generate(ISSUED)
    assert text.startswith(tokens.PREFIX)
    assert len(text) == tokens.TOKEN_CHARS
    assert len(base64.urlsafe_b64decode(text.removeprefix(tokens.PREFIX) + "=")) == 32
    assert token == Token(hashlib.sha256(text.encode()).hexdigest(), ISSUED, None)
    assert text not in repr(token)


def test_no_two_tokens_are_alike() -> None:
    assert len({tokens.generate(ISSUED)[0] for _ in range(100)}) == 100


def test_an_expiry_is_kept() -> None:
    expires = "2027-01-02T03:04:05Z"
    assert tokens.generate(ISSUED, expires)[1].expires == expires


def test_a_token_is_valid_until_the_second_it_expires() -> None:
    lasting = Token("aa" * 32, ISSUED)
    ending = Token("bb" * 32, ISSUED, expires="2026-12-31T23:59:59Z")
    client = Client(tokens=(lasting, ending), keys=())
    assert tokens.valid(client, "2026-12-31T23:59:58Z") == (lasting, ending)
    assert tokens.valid(client, "2026-12-31T23:59:59Z") == (lasting,)
    assert tokens.valid(client, "2027-01-01T00:00:00Z") == (lasting,)
    assert tokens.valid(Client((), ()), ISSUED) == ()


@pytest.mark.parametrize(
    ("ends", "last"),
    [
        ([], None),
        ([None], None),
        (["2026-01-02T00:00:00Z", None], None),
        (["2026-01-02T00:00:00Z"], "2026-01-02T00:00:00Z"),
        (["2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z"], "2026-01-03T00:00:00Z"),
    ],
)
def test_a_client_ends_with_its_last_token(ends: list[str | None], last: str | None) -> None:
    issued = "2026-01-01T00:00:00Z"
    held = tuple(Token(f"{n:064x}", issued, end) for n, end in enumerate(ends))
    assert tokens.last_expiry(Client(held, ())) == last

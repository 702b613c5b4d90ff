"""RSAES-OAEP: what the holder of the private key opens, by another library's hand."""

from __future__ import annotations

from typing import Literal

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kluis.keyring import crypto


@pytest.mark.parametrize("digest", ["SHA-1", "SHA-256"])
def test_the_holder_of_the_key_opens_it(digest: Literal["SHA-1", "SHA-256"]) -> None:
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    public = private.public_key().public_numbers()
    sealed = crypto.rsa_oaep(public.n, public.e, b"a key", digest)
    used = hashes.SHA256() if digest == "SHA-256" else hashes.SHA1()
    assert private.decrypt(sealed, padding.OAEP(padding.MGF1(used), used, None)) == b"a key"


def test_numbers_that_are_no_key_and_too_much_at_once_are_refused() -> None:
    public = rsa.generate_private_key(public_exponent=65_537, key_size=2048).public_key()
    numbers = public.public_numbers()
    with pytest.raises(ValueError, match="e must be"):
        crypto.rsa_oaep(numbers.n, 2, b"a key", "SHA-256")
    with pytest.raises(ValueError, match="Encryption failed"):
        crypto.rsa_oaep(numbers.n, numbers.e, bytes(200), "SHA-256")

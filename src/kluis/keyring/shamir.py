"""Shamir's secret sharing over GF(2^8), for the inner nodes of a policy.

The field is that of AES (polynomial 0x11B), as in HashiCorp Vault's and OpenBao's ``shamir``
package, so shares are interchangeable with theirs: a share of theirs is the y bytes followed by
one x byte. Each byte of the secret is shared by a polynomial of its own.

Table look-ups are indexed by secret bytes; docs/LIMITATIONS.md says what that means for an
attacker on the same core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kluis.errors import SharesCantCombine

MAX_SHARES: Final = 255


def _tables() -> tuple[bytes, bytes]:
    """Exponents and logarithms to the generator 3 of the field."""
    exponent, logarithm, value = bytearray(510), bytearray(256), 1
    for power in range(255):
        exponent[power] = exponent[power + 255] = value
        logarithm[value] = power
        doubled = (value << 1) ^ (0x11B if value & 0x80 else 0)
        value ^= doubled
    return bytes(exponent), bytes(logarithm)


_EXP, _LOG = _tables()


def _multiply(a: int, b: int) -> int:
    return _EXP[_LOG[a] + _LOG[b]] if a and b else 0


def _divide(a: int, b: int) -> int:
    return _EXP[_LOG[a] + 255 - _LOG[b]] if a else 0


def split(
    secret: bytes, threshold: int, shares: int, random_bytes: Callable[[int], bytes]
) -> dict[int, bytes]:
    """Shares of ``secret`` by their x, counted from 1; any ``threshold`` of them give it back.

    ``random_bytes(n)`` must return n bytes from a cryptographic generator. Raises ValueError
    when the threshold or the number of shares can't be.
    """
    if not 1 <= threshold <= shares <= MAX_SHARES:
        raise ValueError(f"{threshold} of {shares} can't be")
    coefficients = [secret, *(random_bytes(len(secret)) for _ in range(threshold - 1))]
    return {x: _evaluate(coefficients, x) for x in range(1, shares + 1)}


def _evaluate(coefficients: list[bytes], x: int) -> bytes:
    """Each byte's polynomial at x, by Horner's rule."""
    value = bytes(len(coefficients[0]))
    for coefficient in reversed(coefficients):
        value = bytes(_multiply(v, x) ^ c for v, c in zip(value, coefficient, strict=True))
    return value


def interpolate(shares: Mapping[int, bytes], x: int = 0) -> bytes:
    """The value at ``x`` of the polynomial through all ``shares``; at 0 it is the secret.

    A share at 0 is the secret itself, which lets a polynomial be extended to new members.

    Raises SharesCantCombine when there are none, an x is outside 0–255, or lengths differ.
    """
    lengths = {len(y) for y in shares.values()}
    if len(lengths) != 1 or not all(0 <= share_x <= MAX_SHARES for share_x in shares):
        raise SharesCantCombine(
            "these shares can't be of one secret",
            "they are none, differ in length, or carry an impossible number",
            "enter shares of one set",
        )
    value = bytearray(lengths.pop())
    for share_x, y in shares.items():
        weight = _weight(share_x, shares, x)
        for i, byte in enumerate(y):
            value[i] ^= _multiply(byte, weight)
    return bytes(value)


def _weight(share_x: int, all_x: Mapping[int, bytes], x: int) -> int:
    """The Lagrange basis polynomial of ``share_x``, evaluated at ``x``."""
    weight = 1
    for other in all_x:
        if other != share_x:
            weight = _multiply(weight, _divide(x ^ other, share_x ^ other))
    return weight

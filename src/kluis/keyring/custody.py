"""What is kept for a server: the shares that unseal it, or its recovery keys.

It is the material of a key of kind ``unseal-shares``, in canonical JSON:

    {"kluis": "shares/1", "purpose": "unseal" | "recovery", "threshold": 3, "shares": [base64 …],
     "next": null | {"threshold": 2, "shares": [base64 …]}, "cluster_id": "…", "root_token": "…",
     "step": "…", "node": "…", "attempt": "…"}

``step`` is the word of a ceremony that is not yet over; empty when all is done:

- ``begun``: an init was begun at the address ``node``; there are no shares yet;
- ``kept``: the shares of an init are here, and what was to follow it is not done yet;
- ``rekeying``: ``attempt`` is the nonce of a rekey. ``shares`` are valid until the server has
  verified those in ``next``, and from then on only these are;
- ``rotating``: ``root_token`` was made for one rotation, and is to be revoked.

``cluster_id`` is empty while it is not known, and so is ``root_token`` once it was revoked.

A share is what the server gave: 33 bytes for a key of 32 (Shamir's y, then one byte of x), or the
32 bytes themselves where one share is enough.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from kluis.errors import DocumentError, UsageError
from kluis.keyring.keys import MAX_MATERIAL_BYTES
from kluis.keyring.strict import (
    JSON,
    Fields,
    as_base64,
    canonical,
    read_canonical,
    to_base64,
)

FORMAT: Final = "shares/1"
MAX_SHARES: Final = 255
SHARE_BYTES: Final = (16, 256)
MAX_INPUT_BYTES: Final = MAX_SHARES * 1024
_TEXT_PATTERN: Final = r"[\x21-\x7e]{0,1024}"
_STEP_PATTERN: Final = r"[a-z-]{0,32}"
_NODE_PATTERN: Final = r"[\x21-\x7e]{0,512}"

Purpose = Literal["unseal", "recovery"]


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of one key, of which ``threshold`` are enough. Nothing of it prints."""

    threshold: int
    shares: tuple[bytes, ...] = field(repr=False)

    def some(self, count: int = 0) -> tuple[str, ...]:
        """As many shares as are needed, or ``count``, in hex, as a server takes them."""
        return tuple(share.hex() for share in self.shares[: count or self.threshold])


@dataclass(frozen=True, slots=True)
class Custody:
    """The shares of one server, of which ``threshold`` are enough. Nothing of it prints."""

    purpose: Purpose
    threshold: int
    shares: tuple[bytes, ...] = field(repr=False)
    cluster_id: str = ""
    root_token: str = field(default="", repr=False)
    step: str = ""
    next: Shares | None = field(default=None, repr=False)
    node: str = ""
    attempt: str = ""

    def some(self, count: int = 0) -> tuple[str, ...]:
        """As many shares as are needed and no more, in hex, as ``sys/unseal`` takes them."""
        return self.present.some(count)

    @property
    def present(self) -> Shares:
        """The shares that were valid last; see ``ways``."""
        return Shares(self.threshold, self.shares)

    def ways(self) -> tuple[Shares, ...]:
        """The sets of shares of which one is valid, the likelier one first: in a rekey two."""
        sets = (self.present, *(() if self.next is None else (self.next,)))
        return tuple(one for one in sets if one.shares)


def to_bytes(custody: Custody) -> bytes:
    """The material of the key."""
    return canonical(
        {
            "kluis": FORMAT,
            "purpose": custody.purpose,
            "threshold": custody.threshold,
            "shares": [to_base64(share) for share in custody.shares],
            "next": None if custody.next is None else _json(custody.next),
            "cluster_id": custody.cluster_id,
            "root_token": custody.root_token,
            "step": custody.step,
            "node": custody.node,
            "attempt": custody.attempt,
        }
    )


def _json(shares: Shares) -> JSON:
    return {
        "threshold": shares.threshold,
        "shares": [to_base64(share) for share in shares.shares],
    }


def from_bytes(data: bytes) -> Custody:
    """The custody in a key's material. Raises DocumentError."""
    fields = Fields(read_canonical(data, MAX_MATERIAL_BYTES), "shares")
    fields.text("kluis", FORMAT)
    purpose = fields.text("purpose", "unseal|recovery")
    present, following = _shares(fields), fields.take("next")
    custody = Custody(
        purpose="unseal" if purpose == "unseal" else "recovery",
        threshold=present.threshold,
        shares=present.shares,
        next=None if following is None else _following(following),
        cluster_id=fields.text("cluster_id", _TEXT_PATTERN),
        root_token=fields.text("root_token", _TEXT_PATTERN),
        step=fields.text("step", _STEP_PATTERN),
        node=fields.text("node", _NODE_PATTERN),
        attempt=fields.text("attempt", _TEXT_PATTERN),
    )
    fields.done()
    return custody


def _following(value: JSON) -> Shares:
    fields = Fields(value, "next")
    shares = _shares(fields)
    fields.done()
    return shares


def _shares(fields: Fields) -> Shares:
    shares = tuple(_share(value) for value in fields.items("shares", MAX_SHARES))
    return Shares(fields.integer("threshold", min(1, len(shares)), len(shares)), shares)


def _share(value: JSON) -> bytes:
    return as_base64(value, "shares", None, SHARE_BYTES[1])


def parse_shares(lines: Iterable[str]) -> tuple[bytes, ...]:
    """Shares as people have them: hex or base64, one a line. Raises UsageError.

    No error shows any of a line, only its number.
    """
    shares: list[bytes] = []
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            shares.append(_parsed(text, number))
            if shares[-1] in shares[:-1]:
                raise _bad(number, "is a share that stands above already", "each is given once")
    if not shares:
        raise UsageError(
            "there is no share", "nothing was read", "give the shares on standard input, one a line"
        )
    if len(shares) > MAX_SHARES or len({len(share) for share in shares}) > 1:
        raise UsageError(
            "these are not the shares of one key",
            f"shares of one key have one length, and there are at most {MAX_SHARES}",
            "give the shares of one server only",
        )
    return tuple(shares)


def _parsed(text: str, number: int) -> bytes:
    low, high = SHARE_BYTES
    for read in (bytes.fromhex, _from_base64):
        try:
            share = read(text)
        except ValueError:
            continue
        if low <= len(share) <= high:
            return share
    raise _bad(number, "is not a share", "a share is 66 hex digits or 44 characters of base64")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _bad(number: int, what: str, means: str) -> UsageError:
    return UsageError(f"line {number} {what}", means, "correct that line, and give all of them")


def require(data: bytes, where: str) -> Custody:
    """As ``from_bytes``, for material of a keyring: an error says whose it is."""
    try:
        return from_bytes(data)
    except DocumentError as error:
        error.seen = f"{where} holds no shares: {error.seen}"
        error.next_step = f"import them anew: kluis key import {where} --shares -"
        raise

"""PINs: a wrong one is tried once, and none where an earlier failure can't be explained.

A token locks after a few wrong tries in a row, and only its security officer unlocks it. So this
process remembers which PINs a token refused and took (salted hashes, for as long as it runs), and
before each login the token's own flags are looked at, for they tell of other programs' tries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import pkcs11
from pkcs11.constants import TokenFlag

from kluis.anchors.pkcs11 import faults
from kluis.anchors.sources import Source
from kluis.errors import Misconfigured, Refused
from kluis.keyring import crypto

MAX_PIN_BYTES: Final = 255

_SALT: Final = crypto.random_bytes(crypto.SALT_BYTES)


@dataclass(frozen=True, slots=True)
class _Tries:
    """What this process knows of one token's PINs: hashes."""

    refused: set[bytes] = field(default_factory=set)
    taken: set[bytes] = field(default_factory=set)


_tries: Final[dict[tuple[str, str, bytes], _Tries]] = {}


def read_pin(source: Source) -> str:
    """The PIN; a newline at its end is none of it. Raises AnchorError."""
    raw = source.read().removesuffix(b"\n")
    try:
        pin = raw.decode("utf-8")
    except UnicodeDecodeError:
        pin = ""
    if not pin or len(raw) > MAX_PIN_BYTES or "\0" in pin:
        raise Misconfigured(
            f"{source} has {len(raw)} bytes that are not a PIN",
            f"a PIN is 1 to {MAX_PIN_BYTES} bytes of text in UTF-8",
            "write the token's PIN there, and nothing else",
        )
    return pin


def refuse_risk(token: pkcs11.Token, pin: str, source: Source, by_hand: str) -> None:
    """Raise Refused where a login could cost a try; ``by_hand`` is a command that logs in."""
    what, tries, mark = f"token {token.label!r}", _tries_of(token), _mark(pin)
    if TokenFlag.USER_PIN_LOCKED & token.flags:
        raise faults.locked(what)
    if mark in tries.refused:
        raise Refused(
            f"{what} refused the PIN from {source} before",
            "kluis does not try it again, for a token locks after a few tries",
            f"put the right PIN into {source}; if it is right by now, restart kluis",
        )
    if TokenFlag.USER_PIN_FINAL_TRY & token.flags:
        raise Refused(
            f"{what} locks at the next wrong PIN",
            "somebody tried wrong ones; kluis does not risk the last try",
            f"log in once by hand, which brings the tries back: {by_hand}",
        )
    explained = mark in tries.taken or tries.refused
    if TokenFlag.USER_PIN_COUNT_LOW & token.flags and not explained:
        raise Refused(
            f"{what} was given a wrong PIN, and no right one since",
            f"whether the PIN from {source} is right is not known here, and tries are few",
            f"log in once by hand with that PIN, which brings the tries back: {by_hand}",
        )


def login(token: pkcs11.Token, pin: str, source: Source, *, writing: bool) -> pkcs11.Session:
    """A session of the user. Raises AnchorError; the PIN is remembered as right or wrong."""
    tries, mark = _tries_of(token), _mark(pin)
    try:
        session = token.open(rw=writing, user_pin=pin)
    except pkcs11.PKCS11Error as error:
        if type(error) in faults.WRONG_PIN:
            tries.taken.discard(mark)
            tries.refused.add(mark)
        raise faults.pin_told(error, f"token {token.label!r}", str(source)) from None
    tries.taken.add(mark)
    return session


def _tries_of(token: pkcs11.Token) -> _Tries:
    name = (token.manufacturer_id, token.label, token.serial)
    return _tries.setdefault(name, _Tries())


def _mark(pin: str) -> bytes:
    return crypto.sha256(_SALT + pin.encode("utf-8"))

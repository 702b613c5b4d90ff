"""What a person should see of a token and its key. No secrets."""

from __future__ import annotations

from typing import Final

import pkcs11
from pkcs11.constants import Attribute, TokenFlag

from kluis.anchors.base import Notice
from kluis.anchors.pkcs11.ciphers import CIPHERS
from kluis.anchors.pkcs11.keys import OTHERWISE, Key
from kluis.anchors.pkcs11.module import Library
from kluis.keyring.strict import JSON

_FLAGS: Final = {
    TokenFlag.USER_PIN_COUNT_LOW: "a wrong PIN was entered since the last login",
    TokenFlag.USER_PIN_FINAL_TRY: "the next wrong PIN locks it",
    TokenFlag.USER_PIN_LOCKED: "the PIN is locked",
    TokenFlag.USER_PIN_TO_BE_CHANGED: "the PIN is the maker's, or expired",
    TokenFlag.WRITE_PROTECTED: "write-protected",
    TokenFlag.PROTECTED_AUTHENTICATION_PATH: "has a PIN pad of its own",
}


def token_facts(library: Library, token: pkcs11.Token) -> dict[str, JSON]:
    """A token: what it is, what it can, and how its PIN stands. Raises PKCS11Error."""
    able = token.slot.get_mechanisms()
    state: list[JSON] = [words for flag, words in _FLAGS.items() if flag & token.flags]
    names = {c.mechanism.name.replace("_", "-") for c in CIPHERS if c.mechanism in able}
    return {
        "module": str(library.path),
        "library": library.description(),
        "slot": token.slot.slot_id,
        "token": token.label,
        "manufacturer": token.manufacturer_id,
        "model": token.model,
        "serial": token.serial.decode("ascii", "replace"),
        "firmware": ".".join(map(str, token.firmware_version)),
        "state": state or ["ready"],
        "mechanisms": [*sorted(names)],
    }


def key_facts(key: Key) -> dict[str, JSON]:
    """A key: its names, what it is, and whether it may leave the token. Raises PKCS11Error."""
    return {
        "label": key.label,
        "id": key.id.hex(),
        "type": described(key),
        "made": {True: "in the token", False: "elsewhere, and put in"}.get(
            key.read(Attribute.LOCAL), "the token does not say where"
        ),
        "sensitive": bool(key.read(Attribute.SENSITIVE)),
        "extractable": may_leave(key),
    }


def described(key: Key) -> str:
    """Its type and size."""
    name = "unknown" if key.type is None else key.type.name
    return f"{name}-{key.bits}" if key.bits else name


def may_leave(key: Key) -> bool:
    """Whether the token would give the key away, wrapped or in the clear."""
    return key.read(Attribute.EXTRACTABLE) is not False or key.read(Attribute.SENSITIVE) is False


def notice_of(key: Key, where: str) -> Notice | None:
    """What a person should know of a key that works."""
    if not may_leave(key):
        return None
    return Notice(
        f"{key} may leave {where}",
        "whoever has the PIN can copy it, and use the copy without the token",
        f"for one that can't: {OTHERWISE}",
    )

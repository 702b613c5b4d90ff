"""The keys in a token: finding the one that is meant, and making it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import pkcs11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType

from kluis.errors import Misconfigured, Missing
from kluis.keyring import crypto

MOST_KEYS: Final = 256
"""How many keys of a token are looked at."""

OTHERWISE: Final = "name another key in the settings, and make it: kluis anchor create-key"

KEY_CLASSES: Final = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)

_NOT_THERE: Final = (
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeSensitive,
    pkcs11.FunctionFailed,
    LookupError,  # python-pkcs11 got no value
    ValueError,  # a value that is no text, or has no name
)


@dataclass(frozen=True, slots=True)
class KeyName:
    """How the settings name a key: by its label (CKA_LABEL) or by its id (CKA_ID)."""

    label: str | None
    id: bytes | None
    anchor: str = ""
    """The anchor whose settings these are, for the words of an error."""

    @classmethod
    def parse(cls, text: str, anchor: str) -> KeyName:
        """A label, or ``id:`` and hex digits. Raises Misconfigured."""
        if not text.startswith("id:"):
            return cls(text, None, anchor)
        if re.fullmatch(r"(?:[0-9A-Fa-f]{2}){1,128}", text[3:]) is None:
            raise Misconfigured(
                f"key {text!r} is not an id",
                "an id is id: and pairs of hex digits",
                "write it as id:01ab, or name the key by its label",
            )
        return cls(None, bytes.fromhex(text[3:]), anchor)

    def __str__(self) -> str:
        return f"key {self.label!r}" if self.id is None else f"key id:{self.id.hex()}"

    def template(self) -> dict[Attribute, Any]:
        """What to search for."""
        return {Attribute.LABEL: self.label} if self.id is None else {Attribute.ID: self.id}


@dataclass(frozen=True, slots=True)
class Key:
    """A key that only those see who logged in (CKA_PRIVATE)."""

    object: pkcs11.Object
    type: KeyType | None
    id: bytes
    label: str
    modulus: bytes

    @property
    def identity(self) -> bytes:
        """32 bytes by which a leaf knows its key: of the modulus, else the id, else the label."""
        if self.modulus:
            return crypto.sha256(b"rsa:" + self.modulus)
        if self.id:
            return crypto.sha256(b"id:" + self.id)
        return crypto.sha256(b"label:" + self.label.encode("utf-8"))

    @property
    def bits(self) -> int:
        """Its size; 0 where the token does not say."""
        if self.modulus:
            return int.from_bytes(self.modulus, "big").bit_length()
        return 8 * int(self.read(Attribute.VALUE_LEN) or 0)

    def read(self, attribute: Attribute) -> Any:
        """An attribute's value; None where the token does not give it."""
        return read(self.object, attribute)

    def __str__(self) -> str:
        return f"{self.label!r} (id:{self.id.hex() or 'none'})"


def read(found: pkcs11.Object, attribute: Attribute) -> Any:
    """An attribute's value; None where the token does not give it. Raises PKCS11Error."""
    try:
        return found[attribute]
    except _NOT_THERE:
        return None


def objects(
    session: pkcs11.Session, class_: ObjectClass, template: dict[Attribute, Any]
) -> list[pkcs11.Object]:
    """The objects of a class that fit, at most ``MOST_KEYS``."""
    found = session.get_objects({Attribute.CLASS: class_, **template})
    return list(islice(found, MOST_KEYS))


def keys(session: pkcs11.Session, class_: ObjectClass, name: KeyName | None = None) -> list[Key]:
    """The keys of a class, all or those of a name.

    Keys that can be used without a login are left out: whoever reaches the token can put one
    there, under any name.
    """
    found = objects(session, class_, {} if name is None else name.template())
    return [_key(one) for one in found if read(one, Attribute.PRIVATE)]


def the_key(
    session: pkcs11.Session, class_: ObjectClass, type_: KeyType, name: KeyName, where: str
) -> Key:
    """The one key of a name. Raises Missing, or Misconfigured where it is none, or several."""
    found = keys(session, class_, name)
    if not found:
        raise _no_key(session, name, where)
    if len(found) > 1:
        raise Misconfigured(
            f"{where} has {len(found)} keys for {name}: {', '.join(map(str, found[:8]))}",
            "which of them is meant can't be told",
            "name the key by its id, as id:HEX, or remove the other",
        )
    if found[0].type is not type_:
        raise _wrong_kind(found, name, where)
    return found[0]


def _no_key(session: pkcs11.Session, name: KeyName, where: str) -> Missing | Misconfigured:
    others = [key for class_ in KEY_CLASSES[:2] for key in keys(session, class_, name)]
    if others:
        return _wrong_kind(others, name, where)
    if exists(session, name):
        return Misconfigured(
            f"{name} in {where} can be used without the PIN, or is a public key alone",
            "kluis seals only to keys that are private to the token's user",
            OTHERWISE,
        )
    return Missing(
        f"{where} has no {name}",
        "it was never made, or was removed, or the token was set up anew",
        f"make it: kluis anchor create-key {name.anchor}",
    )


def exists(session: pkcs11.Session, name: KeyName) -> bool:
    """Whether any key has the name."""
    return any(objects(session, class_, name.template()) for class_ in KEY_CLASSES)


def _wrong_kind(found: Sequence[Key], name: KeyName, where: str) -> Misconfigured:
    types = ", ".join("unknown" if key.type is None else key.type.name for key in found[:8])
    return Misconfigured(
        f"{name} in {where} is of the type {types}",
        "AES-GCM needs an AES key; RSA-OAEP an RSA key",
        "correct mechanism or key",
    )


def _key(found: pkcs11.Object) -> Key:
    return Key(
        object=found,
        type=read(found, Attribute.KEY_TYPE),
        id=read(found, Attribute.ID) or b"",
        label=read(found, Attribute.LABEL) or "",
        modulus=(read(found, Attribute.MODULUS) or b"").lstrip(b"\0"),
    )

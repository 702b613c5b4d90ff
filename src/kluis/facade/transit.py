"""The Transit endpoints: encrypt, decrypt, rewrap, and reading a key's versions.

Locked is a state, not an error. The boot probe (``encrypt`` of the one letter ``a``), whose
answer a server only looks at and throws away, is answered; a ``decrypt`` is held; any other
``encrypt`` is refused, so that an ``operator init`` hands out no recovery keys that it would lose.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kluis.engine.guard import Guard
from kluis.facade.clients import Caller, denied
from kluis.facade.hold import Hold
from kluis.facade.replies import (
    Refusal,
    Reply,
    ciphertext_reply,
    data_reply,
    plaintext_reply,
)
from kluis.facade.requests import Request, base64_member, json_object, text_member
from kluis.keyring.crypto import NONCE_BYTES, TAG_BYTES, random_bytes
from kluis.keyring.keys import TransitKey
from kluis.keyring.strict import JSON

PROBE: Final = b"a"
HEARTBEAT: Final = b"Heartbeat "
OPERATIONS: Final = ("encrypt", "decrypt", "rewrap")
_INIT: Final = (
    "; if this was an operator init, nobody was handed keys, but the server's storage is set up:"
    " empty it and init again once the keyring is open"
)
_REFUSED_FIELDS: Final = ("batch_input", "context", "nonce", "key_version")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A reply, and what the audit log says of it."""

    reply: Reply
    what: str
    version: int


def resolve(guards: Mapping[str, Guard], caller: Caller, mount: str, key: str) -> Guard:
    """The keyring that a caller means. Raises Refusal.

    The mount is a keyring's name; ``transit`` is the one keyring in which the caller has the key.
    """
    if mount == "transit" and mount not in guards:
        found = [name for name, grant in caller.grants.items() if key in grant.keys]
        if len(found) > 1:
            raise Refusal(
                400, (f"{key} lies in {', '.join(sorted(found))}: name one as mount_path",), "mount"
            )
        mount = found[0] if found else mount
    elif mount not in guards:
        raise Refusal(404, (f"no handler for route {mount!r}: it is not a keyring",), "no keyring")
    grant = caller.grants.get(mount)
    if grant is None or key not in grant.keys:
        raise denied(f"{caller.name} may not use this key")
    return guards[mount]


async def use(
    operation: str,
    request: Request,
    guard: Guard,
    key: str,
    hold: Hold,
    body: bytes,
    recheck: Callable[[], None],
) -> Outcome:
    """Answer one encrypt, decrypt or rewrap. Raises Refusal, Gone or KeyringKeyError.

    ``recheck`` raises Refusal when the caller, known only by an unproven directory so far, may
    not use the key by the directory of the open keyring.
    """
    members = json_object(body)
    _refuse_unsupported(members)
    if not guard.is_open:
        if operation == "encrypt":
            return _probe_while_locked(guard, key, members)
        if operation == "rewrap":
            raise _locked(guard)
        await hold.until_open(guard, request.disconnected)
        recheck()
    return _ANSWERS[operation](guard.transit(key), members)


def read(guard: Guard, key: str) -> Outcome:
    """What may be known of a key. Raises Refusal or KeyringKeyError."""
    if not guard.is_open:
        raise _locked(guard)
    transit = guard.transit(key)
    versions: dict[str, JSON] = {
        str(number): int(datetime.fromisoformat(created).timestamp())
        for number, created in sorted(transit.created.items())
        if number >= transit.minimum
    }
    data: dict[str, JSON] = {
        "name": key,
        "type": "aes256-gcm96",
        "keys": versions,
        "latest_version": transit.latest,
        "min_decryption_version": transit.minimum,
        "min_encryption_version": 0,
        "min_available_version": 0,
        "deletion_allowed": False,
        "derived": False,
        "exportable": False,
        "allow_plaintext_backup": False,
        "supports_encryption": True,
        "supports_decryption": True,
        "supports_derivation": False,
        "supports_signing": False,
    }
    return Outcome(data_reply(data), "read", transit.latest)


def _refuse_unsupported(members: Mapping[str, object]) -> None:
    for name in _REFUSED_FIELDS:
        if members.get(name):
            raise Refusal(400, (f"{name} is not supported here",), "unsupported")


def _locked(guard: Guard, hint: str = "") -> Refusal:
    words = f"the keyring {guard.name} is locked: kluis unlock {guard.name} opens it{hint}"
    return Refusal(503, (words,), "locked")


def _probe_while_locked(guard: Guard, key: str, members: Mapping[str, object]) -> Outcome:
    """Bytes in the shape of a ciphertext, for the probe that throws them away."""
    entry = guard.document.keys.get(key)
    if base64_member(members, "plaintext") != PROBE or entry is None:
        raise _locked(guard, _INIT)
    noise = base64.b64encode(random_bytes(NONCE_BYTES + len(PROBE) + TAG_BYTES)).decode("ascii")
    reply = ciphertext_reply(f"vault:v{entry.latest}:{noise}", entry.latest)
    return Outcome(reply, "boot probe while locked", entry.latest)


def _encrypt(key: TransitKey, members: Mapping[str, object]) -> Outcome:
    plaintext = base64_member(members, "plaintext")
    if plaintext is None:
        raise Refusal(400, ("missing plaintext",), "bad body")
    ciphertext = key.encrypt(plaintext, base64_member(members, "associated_data"))
    reply = ciphertext_reply(ciphertext, key.latest)
    return Outcome(reply, _classify(plaintext, "wrap"), key.latest)


def _decrypt(key: TransitKey, members: Mapping[str, object]) -> Outcome:
    ciphertext = text_member(members, "ciphertext")
    plaintext, version = key.decrypt(ciphertext, base64_member(members, "associated_data"))
    reply = plaintext_reply(base64.b64encode(plaintext))
    return Outcome(reply, _classify(plaintext, "unseal"), version)


def _rewrap(key: TransitKey, members: Mapping[str, object]) -> Outcome:
    aad = base64_member(members, "associated_data")
    plaintext, _ = key.decrypt(text_member(members, "ciphertext"), aad)
    reply = ciphertext_reply(key.encrypt(plaintext, aad), key.latest)
    return Outcome(reply, "rewrap", key.latest)


def _classify(plaintext: bytes, otherwise: str) -> str:
    if plaintext == PROBE:
        return "boot probe"
    return "heartbeat" if plaintext.startswith(HEARTBEAT) else otherwise


_ANSWERS: Final = {"encrypt": _encrypt, "decrypt": _decrypt, "rewrap": _rewrap}

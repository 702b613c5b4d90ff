"""What a server is to be moved to: the seal, and what kluis has ready for it."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kluis.engine.clock import now
from kluis.errors import KeyringKeyError, NotRunning, UnknownKey, UsageError
from kluis.keyring import tokens
from kluis.keyring.migrations import SEAL_PATTERN, TARGETS, To
from kluis.servers.declared import KeyPath
from kluis.service.house import House
from kluis.service.operations import Args, text

_KINDS: Final[Mapping[str, str]] = {"facade": "transit", "static": "static", "shamir": "shamir"}
_KEY_KINDS: Final[Mapping[str, str]] = {"facade": "transit", "static": "static-seal"}
_PROBE_CHARS: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: the word of a person, the type of seal, and for ours the key and the client."""

    to: To
    seal: str
    key: KeyPath | None = None
    client: str = ""


async def target(house: House, server: str, args: Args) -> Target:
    """What is asked for, and ready. Raises KluisError."""
    to = _to(args)
    seal = _KINDS.get(to) or text(args, "seal")
    if not re.fullmatch(SEAL_PATTERN, seal):
        raise UsageError(
            "the seal to move to has no kind", "its stanza names it", "correct --new-config"
        )
    if to not in _KEY_KINDS:
        return Target(to, seal)
    key = await _key(house, server, text(args, "key"), _KEY_KINDS[to])
    return Target(to, seal, key, _client(house, key, args) if to == "facade" else "")


def _to(args: Args) -> To:
    wanted = text(args, "to")
    for to in TARGETS:
        if to == wanted:
            return to
    raise UsageError(
        f"a server can't be moved to {wanted or 'nothing'}",
        f"it goes to one of {', '.join(TARGETS)}",
        "name one with --to",
    )


async def opened(house: House, keyring: str) -> None:
    """Have a keyring open. Raises Locked, UsageError or NotFound."""
    guard = house.guard(keyring)
    if not house.serving:
        await guard.try_open()
    guard.require_open()


async def _key(house: House, server: str, asked: str, kind: str) -> KeyPath:
    """The key as asked, or the one that it can only be: of the server's name, or the only one."""
    known = [
        KeyPath(guard.name, name)
        for guard in house.guards.values()
        for name, key in guard.document.keys.items()
        if key.kind == kind
    ]
    fit = [path for path in known if asked in ("", str(path))]
    fit = [path for path in fit if path.key == server] or fit
    if len(fit) != 1:
        raise UnknownKey(
            f"{asked} is no {kind} key" if asked else f"which {kind} key is meant is not clear",
            f"the {kind} keys are: {', '.join(map(str, known)) or 'none'}",
            "name one with --key; kluis.toml declares them, kluis apply makes them",
        )
    await opened(house, fit[0].keyring)
    return fit[0]


def _client(house: House, key: KeyPath, args: Args) -> str:
    """The client that the server is to the facade, which must be running."""
    if not house.serving or house.audit is None:
        raise NotRunning(
            "no facade is running",
            "a server does not even start with a seal that nobody answers for",
            "start kluis serve first",
        )
    clients = house.guard(key.keyring).document.clients
    may, asked = (
        [name for name, one in clients.items() if key.key in one.keys],
        text(args, "client"),
    )
    fit = [name for name in may if asked in ("", name)]
    if len(fit) != 1:
        raise UsageError(
            f"{asked} may not use {key}" if asked else f"which client uses {key} is not clear",
            f"those that may: {', '.join(may) or 'none'}",
            "name one with --client; kluis.toml declares them, kluis apply admits them",
        )
    if args.get("issue") is not True and not tokens.valid(clients[fit[0]], now()):
        raise UsageError(
            f"{fit[0]} has no token",
            "its server would be refused",
            "add --issue; or kluis client issue gives it one",
        )
    return fit[0]


def is_same_key(house: House, key: KeyPath, args: Args) -> bool:
    """Whether kluis has the very key that seals the server now: then nothing is to be moved.

    What the old Transit just encrypted shows it. ``repoint`` is a person's word instead.
    """
    if args.get("repoint") is True:
        return True
    plaintext, ciphertext = args.get("plaintext"), args.get("ciphertext")
    if not isinstance(plaintext, str) or not isinstance(ciphertext, str):
        return False
    try:
        found, _ = house.guard(key.keyring).transit(key.key).decrypt(ciphertext[:_PROBE_CHARS])
    except KeyringKeyError:
        return False
    return hmac.compare_digest(found, plaintext.encode())

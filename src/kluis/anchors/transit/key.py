"""What a Transit engine says of a key, and whether an anchor can be had of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from kluis.anchors.transit.api import OK, Server, member, number, word
from kluis.errors import AnchorError, Misconfigured, Missing
from kluis.keyring.strict import JSON

NEW_TYPE: Final = "aes256-gcm96"
BINDING_TYPES: Final = ("aes128-gcm96", NEW_TYPE, "chacha20-poly1305", "xchacha20-poly1305")
"""Types of keys that bind associated data."""
NOT_READABLE: Final = "not known: the token may not read the key"


class NoFacts(Enum):
    """Why nothing is known of a key."""

    MISSING = "there is none"
    HIDDEN = "the token may not read it"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key. Versions below ``minimum`` decrypt nothing."""

    type: str
    latest: int
    minimum: int
    derived: bool
    soft_deleted: bool

    def shown(self) -> dict[str, JSON]:
        """For a person."""
        return {
            "key_type": self.type,
            "latest_version": self.latest,
            "min_decryption_version": self.minimum,
        }


async def read_key(server: Server, name: str, token: str) -> KeyFacts | NoFacts:
    """What ``<mount>/keys/<name>`` says. Raises AnchorError when the server is in trouble."""
    path = f"{server.mount}/keys/{name}"
    answer = await server.ask("GET", path, token=token)
    if answer.status == OK:
        found = member(answer.json(), "data")
        facts = KeyFacts(
            word(found, "type"),
            number(found, "latest_version"),
            number(found, "min_decryption_version"),
            found.get("derived") is True,
            found.get("soft_deleted") is True,
        )
        if facts.type and facts.latest:
            return facts
    if error := await server.trouble(answer, path):
        raise error
    if answer.status == 404:
        return NoFacts.MISSING
    if answer.status == 403:
        return NoFacts.HIDDEN
    raise server.strange(answer, path)


async def mount_type(server: Server, token: str) -> str:
    """The type of the engine behind the mount; empty when none is, or nothing may be known of it.

    Answered to every token that may do anything at all in the mount.
    """
    path = f"sys/internal/ui/mounts/{server.mount}"
    answer = await server.ask("GET", path, token=token)
    return word(member(answer.json(), "data"), "type") if answer.status == OK else ""


def unfit(server: Server, name: str, facts: KeyFacts) -> AnchorError | None:
    """Why no anchor can be had of a key; None when one can."""
    path = f"{server.mount}/keys/{name}"
    if facts.soft_deleted:
        return Missing(
            f"{path} of {server.host} is deleted, though not yet for good",
            "OpenBao does not use a key that was soft-deleted",
            f"bring it back while it is there: bao write -f {path}/soft-delete-restore",
        )
    if facts.type not in BINDING_TYPES:
        return Misconfigured(
            f"{path} of {server.host} is a key of type {facts.type}",
            "only AEAD keys bind a leaf to its place in the keyring",
            f"make a key of type {NEW_TYPE} and name it",
        )
    if facts.derived:
        return Misconfigured(
            f"{path} of {server.host} is a derived key",
            "such a key wants a context of its own at each use",
            "make one that is not derived and name it",
        )
    return None

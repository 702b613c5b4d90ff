"""Which servers a person holds: they stay as they are, sealed or not, until they are released.

The record is no secret, and not proven by anything: it lies beside a keyring's document, so that
a hold outlives a restart. Times are whole seconds of Unix time; ``until_s`` is 0 for one that holds
until somebody releases it.

    {"kluis": "holds/1", "servers": {"old-vault": {"since_s": 1767225600, "until_s": 0}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kluis.errors import DocumentError, TooLarge
from kluis.keyring.policy import NAME_PATTERN
from kluis.keyring.strict import JSON, Fields, canonical, read_canonical

FORMAT: Final = "holds/1"
MAX_HOLDS: Final = 4096
MAX_HOLDS_BYTES: Final = 1024 * 1024
MAX_TIME_S: Final = 253_402_300_799  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class Held:
    """From when a server is held, and until when; None: until somebody releases it."""

    since_s: int
    until_s: int | None = None

    def over(self, now_s: float) -> bool:
        """Whether its time is up."""
        return self.until_s is not None and self.until_s <= now_s


@dataclass(frozen=True, slots=True)
class Holds:
    """The servers that are held, by their names."""

    servers: Mapping[str, Held] = field(default_factory=dict)

    def held(self, server: str, now_s: int, until_s: int | None) -> Holds:
        """With one more, or with another end of one; what is over goes. Raises TooLarge."""
        left = {name: held for name, held in self.servers.items() if not held.over(now_s)}
        since_s = left[server].since_s if server in left else now_s
        left[server] = Held(since_s, until_s)
        if len(left) > MAX_HOLDS:
            raise TooLarge(
                f"{MAX_HOLDS} servers are held",
                "no more are kept on record",
                "kluis server release those that need it no more",
            )
        return Holds(left)

    def released(self, server: str) -> Holds:
        """Without one."""
        return Holds({name: held for name, held in self.servers.items() if name != server})


def to_bytes(holds: Holds) -> bytes:
    """The record in canonical JSON."""
    servers: dict[str, JSON] = {
        name: {"since_s": held.since_s, "until_s": held.until_s or 0}
        for name, held in holds.servers.items()
    }
    return canonical({"kluis": FORMAT, "servers": servers})


def from_bytes(data: bytes) -> Holds:
    """The record in some bytes. Raises DocumentError."""
    try:
        return _read(data)
    except DocumentError as error:
        error.means = "somebody changed the file, or the disk did; until it is mended all are held"
        error.next_step = "restore the file, or remove it and hold anew what shall stay sealed"
        raise


def _read(data: bytes) -> Holds:
    fields = Fields(read_canonical(data, MAX_HOLDS_BYTES), "")
    fields.text("kluis", FORMAT)
    members = fields.members("servers", NAME_PATTERN, MAX_HOLDS)
    fields.done()
    return Holds({name: _held(Fields(value, f"servers.{name}")) for name, value in members})


def _held(fields: Fields) -> Held:
    held = Held(
        fields.integer("since_s", 0, MAX_TIME_S), fields.integer("until_s", 0, MAX_TIME_S) or None
    )
    fields.done()
    return held

"""A single server as OpenBao 2.7.2 was measured to behave between seals; without a process.

Seals are named by a type and a key, such as ``transit:old``; ``shamir`` has no stanza.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kluis.servers.migration.standing import Presence, Seen
from kluis.servers.migration.stanzas import AFTER, BACK, BEFORE, MIGRATE

ADDRESS = "http://127.0.0.1:8200"
SHAMIR = "shamir"
SHARES = 2


@dataclass
class Model:
    """``stored`` is the seal that its storage is under; ``active`` and ``disabled`` its stanzas."""

    source: str
    target: str
    stored: str = ""
    active: str = ""
    disabled: str = ""
    running: bool = True
    sealed: bool = False
    entered: int = 0
    starts: int = field(default=1)

    def __post_init__(self) -> None:
        self.stored = self.active = self.source

    @property
    def files(self) -> dict[str, tuple[str, str]]:
        """The active and the disabled seal of every file."""
        old, new = self.source, self.target
        return {
            BEFORE: (old, ""),
            MIGRATE: (new, "" if old == SHAMIR else old),
            AFTER: (new, ""),
            BACK: (old, "" if new == SHAMIR else new),
        }

    def restart(self, file: str) -> None:
        """End it, and start it with the stanzas of a file."""
        self.active, self.disabled = self.files[file]
        self.starts += 1
        self.entered, self.sealed = 0, True
        self.running = self._starts()
        if self.running and self.active == self.stored != SHAMIR and not self.disabled:
            self.sealed = False

    def _starts(self) -> bool:
        if self.disabled or self.active == self.stored:
            return True
        same_type = kind(self.active) == kind(self.stored)
        return same_type or self.stored == SHAMIR  # else: no disabled seal in configuration

    @property
    def migration(self) -> bool:
        """What ``sys/seal-status`` says."""
        away_from_shamir = self.stored == SHAMIR and not self.disabled
        pending = self.active != self.stored and (away_from_shamir or self.disabled == self.stored)
        return self.running and pending

    def give(self, count: int, *, migrate: bool) -> None:
        """Enter so many shares."""
        if not self.running or not self.sealed or migrate != self.migration:
            return
        self.entered += count
        if self.entered < SHARES:
            return
        self.entered = 0
        if self.migration:
            self.stored, self.sealed = self.active, False
        elif self.stored == self.active == SHAMIR:
            self.sealed = False

    def seen(self) -> Seen:
        """What a look shows."""
        if not self.running:
            return Seen(ADDRESS, Presence.AWAY)
        up = not self.sealed
        return Seen(
            ADDRESS,
            Presence.THERE,
            seal=kind(self.active),
            sealed=self.sealed,
            migration=self.migration,
            active=up,
            active_time=f"start-{self.starts}" if up else "",
        )


def kind(seal: str) -> str:
    """The type of a seal."""
    return seal.partition(":")[0]

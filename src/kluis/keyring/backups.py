"""Known backups of servers: what each would need to be unsealed again after it was restored.

A server's backup holds its root key as one version of a transit key wrapped it. While a backup is
known, that version is not retired. The record is no secret, and not proven by anything: it lies
beside the keyring's document, for people's own good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kluis.errors import DocumentError, TooLarge, UsageError
from kluis.keyring.document import TIME_PATTERN
from kluis.keyring.keys import MAX_VERSIONS
from kluis.keyring.policy import KEY_NAME_PATTERN
from kluis.keyring.strict import JSON, Fields, canonical, read_canonical

FORMAT: Final = "backups/1"
MAX_BACKUPS: Final = 1024
MAX_BACKUPS_BYTES: Final = 1024 * 1024
LABEL_PATTERN: Final = r"[A-Za-z0-9](?:[A-Za-z0-9 ._:@/+-]{0,94}[A-Za-z0-9])?"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that somebody noted: it needs ``version`` of ``key``. ``noted`` is RFC 3339, UTC."""

    number: int
    label: str
    key: str
    version: int
    noted: str


@dataclass(frozen=True, slots=True)
class Backups:
    """The backups known to one keyring. Numbers are given once, from 1."""

    known: tuple[Backup, ...] = ()
    following: int = 1

    def noted(self, label: str, key: str, version: int, now: str) -> Backups:
        """With one more. Raises TooLarge."""
        if len(self.known) >= MAX_BACKUPS:
            raise TooLarge(
                f"{MAX_BACKUPS} backups are noted",
                "no more are kept",
                "kluis backup forget those that are gone",
            )
        backup = Backup(self.following, label, key, version, now)
        return Backups((*self.known, backup), self.following + 1)

    def forgotten(self, number: int) -> Backups:
        """Without one. Raises UsageError when there is none of that number."""
        left = tuple(backup for backup in self.known if backup.number != number)
        if left == self.known:
            raise UsageError(
                f"no backup has the number {number}",
                "it was never noted, or is forgotten already",
                "kluis backup list shows the numbers",
            )
        return replace(self, known=left)

    def of(self, key: str) -> tuple[Backup, ...]:
        """Those that need a version of this key."""
        return tuple(backup for backup in self.known if backup.key == key)


def to_bytes(backups: Backups) -> bytes:
    """The record in canonical JSON."""
    known: list[JSON] = [
        {
            "number": backup.number,
            "label": backup.label,
            "key": backup.key,
            "version": backup.version,
            "noted": backup.noted,
        }
        for backup in backups.known
    ]
    return canonical({"kluis": FORMAT, "following": backups.following, "backups": known})


def from_bytes(data: bytes) -> Backups:
    """The record in some bytes. Raises DocumentError."""
    try:
        return _read(data)
    except DocumentError as error:
        error.means = "somebody changed the file, or the disk did"
        error.next_step = "restore the file, or remove it and note the backups anew"
        raise


def _read(data: bytes) -> Backups:
    fields = Fields(read_canonical(data, MAX_BACKUPS_BYTES), "")
    fields.text("kluis", FORMAT)
    following = fields.integer("following", 1)
    items = fields.items("backups", MAX_BACKUPS)
    fields.done()
    known = tuple(_backup(Fields(item, f"backups.{n}"), following) for n, item in enumerate(items))
    return Backups(known, following)


def _backup(fields: Fields, following: int) -> Backup:
    backup = Backup(
        number=fields.integer("number", 1, following - 1),
        label=fields.text("label", LABEL_PATTERN),
        key=fields.text("key", KEY_NAME_PATTERN),
        version=fields.integer("version", 1, MAX_VERSIONS),
        noted=fields.text("noted", TIME_PATTERN),
    )
    fields.done()
    return backup

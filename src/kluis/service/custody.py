"""What keyrings keep for servers: shares and recovery keys, read and written."""

from __future__ import annotations

from kluis.engine import change
from kluis.engine.clock import now
from kluis.errors import UnknownKey
from kluis.keyring import custody
from kluis.keyring.custody import Custody
from kluis.keyring.keys import Key, Version
from kluis.servers.declared import KeyPath
from kluis.service.house import House
from kluis.service.journal import recorded


def kept(house: House, path: KeyPath) -> Custody:
    """What is kept under a key. Raises UsageError, NotFound, Locked, UnknownKey, DocumentError."""
    key = house.guard(path.keyring).key(path.key, "unseal-shares")
    return custody.require(key.versions[key.latest].material, str(path))


def kept_if_any(house: House, path: KeyPath) -> Custody | None:
    """As ``kept``; None where there is no such key yet. Raises Locked."""
    guard = house.guard(path.keyring)
    there = path.key in guard.require_open().contents.keys
    return kept(house, path) if there else None


def keep(house: House, path: KeyPath, kept_now: Custody, event: str) -> None:
    """Write it, in the place of what was kept, and put that on record before.

    The caller holds ``house.changing``. Raises Locked, StoreError, AuditError, UnknownKey when a
    key of another kind has that name, and DocumentError when it could not be read again.
    """
    guard = house.guard(path.keyring)
    opened = guard.require_open()
    old = opened.contents.keys.get(path.key)
    if old is not None and old.kind != "unseal-shares":
        raise UnknownKey(
            f"{path} is a key of kind {old.kind}",
            "shares are kept in a key of their own",
            "name another key",
        )
    number = 1 if old is None else old.latest + 1
    material = custody.to_bytes(kept_now)
    custody.require(material, str(path))  # what a server said must not make it unreadable
    version = Version(material, now())
    key = Key("unseal-shares", {number: version}, minimum=number)
    changed = change.put_key(opened, path.key, key, now())
    with recorded(
        house, event, keyring=path.keyring, key=path.key, version=str(number), what=kept_now.step
    ):
        guard.save(changed.opened)
    if house.watcher is not None:
        house.watcher.wake()  # what was refused, or was not there, may fit now

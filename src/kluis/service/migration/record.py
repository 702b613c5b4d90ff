"""The record of migrations, over all keyrings: found, written, ended."""

from __future__ import annotations

from typing import Final

from kluis.errors import UsageError
from kluis.keyring.migrations import Migration
from kluis.servers.declared import KeyPath
from kluis.service.house import House

EVENT: Final = "server-migrate"
"""What the audit log calls it."""


def on_record(house: House, server: str) -> tuple[str, Migration] | None:
    """The migration of a server that is under way, or else its last, and the keyring beside it.

    Which keyring that is may differ from one migration to the next: it is that of the shares.
    """
    stores = house.blueprint.stores.items()
    noted = ((keyring, store.load_migrations(keyring).of(server)) for keyring, store in stores)
    found = [(keyring, one) for keyring, one in noted if one is not None]
    return max(found, key=lambda at: (not at[1].progress.proven, at[1].began), default=None)


def required(house: House, server: str) -> tuple[str, Migration]:
    """As ``on_record``. Raises UsageError where there is none."""
    found = on_record(house, server)
    if found is None:
        raise UsageError(
            f"no migration of {server} is under way",
            "none was begun here, or it went back and is over",
            "begin one with --to facade, static, shamir or other",
        )
    return found


def refuse_second(house: House, server: str) -> None:
    """One at a time. Raises UsageError."""
    found = on_record(house, server)
    if found is not None and not found[1].progress.proven:
        raise UsageError(
            f"{server} is on its way to {found[1].to} already, since {found[1].began}",
            "one migration ends before another begins",
            f"kluis server migrate {server} goes on with it, and --back turns it round",
        )


def save(house: House, keyring: str, one: Migration) -> None:
    """Write it. The caller holds ``house.changing``. Raises StoreError."""
    store = house.blueprint.stores[keyring]
    store.save_migrations(keyring, store.load_migrations(keyring).noted(one))


def forget_elsewhere(house: House, keyring: str, server: str) -> None:
    """Let go of what ended beside other keyrings. The caller holds ``house.changing``."""
    for other, store in house.blueprint.stores.items():
        noted = store.load_migrations(other)
        if other != keyring and noted.of(server) is not None:
            store.save_migrations(other, noted.forgotten(server))


async def forget(house: House, keyring: str, one: Migration) -> None:
    """End what never came to anything, unless another call has changed it."""
    async with house.changing:
        store = house.blueprint.stores[keyring]
        noted = store.load_migrations(keyring)
        if noted.of(one.server) == one:
            store.save_migrations(keyring, noted.forgotten(one.server))


def shares_of(one: Migration) -> KeyPath | None:
    """Where the shares are kept that move it; a re-point needs none."""
    return None if not one.shares else key_path(one.shares)


def key_path(path: str) -> KeyPath:
    """A path as it is on record."""
    keyring, _, key = path.partition("/")
    return KeyPath(keyring, key)

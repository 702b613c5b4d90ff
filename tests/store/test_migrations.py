"""The record of migrations beside the documents: kept whole, and private."""

from __future__ import annotations

from pathlib import Path

import pytest

from kluis.errors import NotJson, Unsafe
from kluis.keyring.migrations import Migration, Migrations
from kluis.store.base import Store
from kluis.store.directory import DirectoryStore

ONE = Migrations().noted(
    Migration("it", "shamir", "transit", "facade", "homelab/it", "2026-01-02T03:04:05Z")
)


def test_each_keyring_has_its_own_record(tmp_path: Path) -> None:
    store: Store = DirectoryStore(tmp_path / "state")
    assert store.load_migrations("homelab") == Migrations()
    store.save_migrations("homelab", ONE)
    assert store.load_migrations("homelab") == ONE
    assert store.load_migrations("other") == Migrations()
    assert (tmp_path / "state" / "homelab.migrations").stat().st_mode & 0o777 == 0o600


def test_a_record_that_is_damaged_or_open_to_others_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "state")
    store.save_migrations("homelab", ONE)
    path = store.folder / "homelab.migrations"
    path.chmod(0o666)
    with pytest.raises(Unsafe):
        store.load_migrations("homelab")
    path.chmod(0o600)
    path.write_bytes(b"")
    with pytest.raises(NotJson) as raised:
        store.load_migrations("homelab")
    assert str(path) in raised.value.seen

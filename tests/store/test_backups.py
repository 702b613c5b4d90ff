"""The record of known backups beside the documents: kept whole, and private."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kluis.errors import NotCanonical, NotJson, TooLarge, Unsafe, WriteFailed
from kluis.keyring.backups import MAX_BACKUPS_BYTES, Backups
from kluis.store.base import Store
from kluis.store.directory import DirectoryStore
from tests.store.documents import document

ONE = Backups().noted("bletchley", "unseal", 1, "2026-01-02T03:04:05Z")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "state")


def test_nobody_noted_a_backup_yet(store: DirectoryStore) -> None:
    assert store.load_backups("homelab") == Backups()


def test_each_keyring_has_its_own_record_and_the_documents_stay(store: DirectoryStore) -> None:
    contract: Store = store
    contract.save(document(1), after=0)
    contract.save_backups("homelab", ONE)
    contract.save_backups("other", ONE.forgotten(1))
    assert contract.load_backups("homelab") == ONE
    assert contract.load_backups("other") == ONE.forgotten(1)
    assert contract.load("homelab") == document(1)
    assert (store.folder / "homelab.backups").stat().st_mode & 0o777 == 0o600


def test_a_record_that_others_can_write_is_refused(store: DirectoryStore) -> None:
    store.save_backups("homelab", ONE)
    (store.folder / "homelab.backups").chmod(0o666)
    with pytest.raises(Unsafe):
        store.load_backups("homelab")


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", NotJson), (b"{ }", NotCanonical), (b" " * (MAX_BACKUPS_BYTES + 1), TooLarge)],
)
def test_a_damaged_record_is_not_taken_for_none(
    data: bytes, error: type[Exception], store: DirectoryStore
) -> None:
    store.save_backups("homelab", ONE)
    path = store.folder / "homelab.backups"
    path.write_bytes(data)
    with pytest.raises(error) as raised:
        store.load_backups("homelab")
    assert str(path) in str(getattr(raised.value, "seen", ""))


def test_a_write_that_fails_leaves_the_old_record(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_backups("homelab", ONE)

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(WriteFailed):
        store.save_backups("homelab", Backups())
    assert store.load_backups("homelab") == ONE

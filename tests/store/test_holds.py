"""The record of held servers beside the documents: whole, private, and read when it changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kluis.errors import NotCanonical, NotJson, TooLarge, Unsafe, WriteFailed
from kluis.keyring import holds
from kluis.keyring.holds import MAX_HOLDS_BYTES, Holds
from kluis.store.base import Store
from kluis.store.directory import DirectoryStore
from tests.store.documents import document

ONE = Holds().held("old-vault", 1_767_225_600, None)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "state")


def test_each_keyring_has_its_own_record_and_the_documents_stay(store: DirectoryStore) -> None:
    contract: Store = store
    assert contract.load_holds("homelab") == Holds()
    contract.save(document(1), after=0)
    contract.save_holds("homelab", ONE)
    contract.save_holds("other", Holds())
    assert (contract.load_holds("homelab"), contract.load_holds("other")) == (ONE, Holds())
    assert contract.load("homelab") == document(1)
    assert (store.folder / "homelab.holds").stat().st_mode & 0o777 == 0o600


def test_the_file_is_read_only_when_it_is_another_one(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_holds("homelab", ONE)
    reads: list[bytes] = []
    read = holds.from_bytes

    def noted(data: bytes) -> Holds:
        reads.append(data)
        return read(data)

    monkeypatch.setattr(holds, "from_bytes", noted)
    assert [store.load_holds("homelab") for _ in range(3)] == [ONE] * 3
    assert len(reads) == 1
    DirectoryStore(store.folder).save_holds("homelab", ONE.held("another", 1, 2_000_000_000))
    assert set(store.load_holds("homelab").servers) == {"old-vault", "another"}
    assert len(reads) == 2
    (store.folder / "homelab.holds").unlink()
    assert store.load_holds("homelab") == Holds()


def test_a_record_that_others_can_write_is_refused_although_it_was_read(
    store: DirectoryStore,
) -> None:
    store.save_holds("homelab", ONE)
    assert store.load_holds("homelab") == ONE
    (store.folder / "homelab.holds").chmod(0o666)
    with pytest.raises(Unsafe):
        store.load_holds("homelab")


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", NotJson), (b"{ }", NotCanonical), (b" " * (MAX_HOLDS_BYTES + 1), TooLarge)],
)
def test_a_damaged_record_is_not_taken_for_none(
    data: bytes, error: type[Exception], store: DirectoryStore
) -> None:
    store.save_holds("homelab", ONE)
    path = store.folder / "homelab.holds"
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(error) as raised:
            store.load_holds("homelab")
        assert str(path) in str(getattr(raised.value, "seen", ""))


def test_a_record_that_can_not_be_looked_at_is_not_taken_for_none(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.load_holds("homelab") == Holds()

    def refuse(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(Unsafe):
        store.load_holds("homelab")


def test_a_write_that_fails_leaves_the_old_record(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_holds("homelab", ONE)

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(WriteFailed):
        store.save_holds("homelab", Holds())
    assert store.load_holds("homelab") == ONE

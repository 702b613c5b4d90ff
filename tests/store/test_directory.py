"""The default store: what it keeps, what it refuses, and what it never loses."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kluis.errors import (
    Conflict,
    DocumentError,
    ForeignFormat,
    NotCanonical,
    NotFound,
    NotJson,
    RolledBack,
    TooLarge,
    Unsafe,
    WriteFailed,
)
from kluis.keyring.document import MAX_DOCUMENT_BYTES, to_bytes
from kluis.store.base import Store
from kluis.store.directory import KEPT, DirectoryStore
from tests.store.documents import document

OTHER_ID = "87654321-1234-4234-8234-123456789012"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(folder: Path) -> DirectoryStore:
    return DirectoryStore(folder)


def write_up_to(store: Store, revision: int) -> None:
    for number in range(1, revision + 1):
        store.save(document(number), after=number - 1)


def put(path: Path, data: bytes) -> None:
    """What somebody does by hand, not the store."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)


def test_loads_what_was_saved(store: DirectoryStore) -> None:
    contract: Store = store
    contract.save(document(1), after=0)
    contract.save(document(2), after=1)
    contract.save(document(1, name="other"), after=0)
    assert contract.load("homelab") == document(2)
    assert contract.load("other") == document(1, name="other")


def test_what_is_not_there_is_not_found(store: DirectoryStore, folder: Path) -> None:
    with pytest.raises(NotFound):
        store.load("homelab")
    assert not folder.exists()
    write_up_to(store, 1)
    with pytest.raises(NotFound):
        store.load("other")


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_a_writer_who_is_late_changes_nothing(
    store: DirectoryStore, folder: Path, after: int
) -> None:
    write_up_to(store, 2)
    before = snapshot(folder)
    with pytest.raises(Conflict):
        store.save(document(9), after=after)
    assert snapshot(folder) == before


def test_a_writer_of_what_is_no_longer_there_changes_nothing(store: DirectoryStore) -> None:
    with pytest.raises(Conflict):
        store.save(document(3), after=2)
    with pytest.raises(NotFound):
        store.load("homelab")


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = DirectoryStore(tmp_path / "a" / "b")
        write_up_to(store, 2)
    finally:
        os.umask(old)
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    store.load("homelab")


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (".", 0o755),
        (".", 0o701),
        ("homelab.json", 0o644),
        ("homelab.json", 0o620),
        ("homelab.seen", 0o640),
    ],
)
def test_what_others_can_touch_is_refused(
    store: DirectoryStore, folder: Path, name: str, mode: int
) -> None:
    write_up_to(store, 1)
    (folder / name).chmod(mode)
    with pytest.raises(Unsafe) as caught:
        store.load("homelab")
    assert f"{mode:04o}" in caught.value.seen
    assert caught.value.next_step.startswith("chmod 700" if name == "." else "chmod 600")


@pytest.mark.parametrize("name", [".", "history", "homelab.json"])
def test_what_others_can_touch_is_not_written_to(
    store: DirectoryStore, folder: Path, name: str
) -> None:
    write_up_to(store, 1)
    (folder / name).chmod(0o755)
    with pytest.raises(Unsafe):
        store.save(document(2), after=1)
    (folder / name).chmod(0o700)
    assert store.load("homelab") == document(1)


def test_a_folder_in_place_of_a_document_is_refused(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 1)
    (folder / "homelab.json").unlink()
    (folder / "homelab.json").mkdir(mode=0o700)
    with pytest.raises(Unsafe, match="can't be read"):
        store.load("homelab")


def test_a_file_in_place_of_the_folder_can_not_be_written_to(tmp_path: Path) -> None:
    put(tmp_path / "state", b"")
    with pytest.raises(WriteFailed):
        DirectoryStore(tmp_path / "state").save(document(1), after=0)
    for folder in (tmp_path / "state", tmp_path / "state" / "inner"):
        with pytest.raises(Unsafe):
            DirectoryStore(folder).load("homelab")


def test_a_folder_in_place_of_the_lock_can_not_be_written_to(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, 1)
    (folder / "write.lock").unlink()
    (folder / "write.lock").mkdir()
    with pytest.raises(WriteFailed):
        store.save(document(2), after=1)


# -- history ---------------------------------------------------------------------------------


def test_the_last_ten_documents_are_kept(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 25)
    kept = store.history("homelab")
    assert [path.name for path in kept] == [f"homelab.{n}.json" for n in range(24, 24 - KEPT, -1)]
    for path, revision in zip(kept, range(24, 24 - KEPT, -1), strict=True):
        assert path.read_bytes() == to_bytes(document(revision))


def test_foreign_files_in_the_history_stay_and_count_for_nothing(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, 2)
    for name in ("homelab.x.json", "homelab.².json", "homelab.json", "other.1.json"):
        put(folder / "history" / name, b"")
    write_up_to(DirectoryStore(folder.parent / "elsewhere"), 1)
    for revision in range(3, 20):
        store.save(document(revision), after=revision - 1)
    assert len(store.history("homelab")) == KEPT
    assert (folder / "history" / "homelab.².json").exists()


def test_a_history_that_can_not_be_pruned_is_no_failure(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, KEPT + 1)
    oldest = folder / "history" / "homelab.1.json"
    oldest.unlink()
    oldest.mkdir()  # unlink() of a folder fails, also for root
    store.save(document(KEPT + 2), after=KEPT + 1)
    assert store.load("homelab") == document(KEPT + 2)


# -- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda data: b"", NotJson),
        (lambda data: data[:-1], NotJson),
        (lambda data: data + b"\n", NotCanonical),
        (lambda data: b"{}", ForeignFormat),
        (lambda data: b"\0" * len(data), NotJson),
        (lambda data: data + b" " * MAX_DOCUMENT_BYTES, TooLarge),
    ],
    ids=["empty", "cut", "longer", "foreign", "zeros", "huge"],
)
def test_a_damaged_document_is_refused_and_says_how_to_go_back(
    store: DirectoryStore,
    folder: Path,
    damage: Callable[[bytes], bytes],
    error: type[DocumentError],
) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.json", damage(to_bytes(document(3))))
    before = snapshot(folder)
    for use in (
        lambda: store.load("homelab"),
        lambda: store.load("homelab", accept_rollback=True),
        lambda: store.save(document(4), after=3),
    ):
        with pytest.raises(error) as caught:
            use()
        assert str(folder / "homelab.json") in caught.value.seen
        assert str(folder / "history" / "homelab.2.json") in caught.value.next_step
    assert snapshot(folder) == before
    put(folder / "homelab.json", (folder / "history" / "homelab.2.json").read_bytes())
    assert store.load("homelab", accept_rollback=True) == document(2)


def test_a_damaged_first_document_has_no_history_to_name(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, 1)
    put(folder / "homelab.json", b"")
    with pytest.raises(NotJson) as caught:
        store.load("homelab")
    assert "history/" not in caught.value.next_step


def test_a_renamed_file_is_refused(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 1)
    (folder / "homelab.json").rename(folder / "other.json")
    with pytest.raises(Conflict, match="holds the keyring homelab"):
        store.load("other")
    with pytest.raises(Conflict):
        store.save(document(2, name="other"), after=1)


# -- rollback --------------------------------------------------------------------------------


def test_an_older_document_put_back_is_refused(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.json", (folder / "history" / "homelab.2.json").read_bytes())
    before = snapshot(folder)
    with pytest.raises(RolledBack, match="at revision 2; here 3 was seen"):
        DirectoryStore(folder).load("homelab")
    assert snapshot(folder) == before


def test_a_rollback_that_was_accepted_is_the_new_mark(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.json", (folder / "history" / "homelab.2.json").read_bytes())
    assert store.load("homelab", accept_rollback=True) == document(2)
    with pytest.raises(RolledBack):  # accepted for this time: nobody has proven it yet
        store.load("homelab")
    store.remember(document(2))
    assert store.load("homelab") == document(2)
    store.save(document(3), after=2)


def test_another_document_of_the_same_revision_is_refused(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.json", to_bytes(document(3, body_bytes=65)))
    with pytest.raises(RolledBack):
        store.load("homelab")


def test_another_keyring_of_the_same_name_is_refused_whatever_its_revision(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.json", to_bytes(document(99, keyring_id=OTHER_ID)))
    with pytest.raises(RolledBack):
        store.load("homelab")


def test_a_newer_document_put_there_by_hand_is_taken_and_marked_once_proven(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.json", to_bytes(document(7)))
    assert store.load("homelab") == document(7)
    store.remember(document(7))
    put(folder / "homelab.json", to_bytes(document(6)))
    with pytest.raises(RolledBack):
        store.load("homelab")


DAMAGED_MARKS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"[" * 4096,
    b'{"id":1,"revision":3}',
    b'{"id":"12345678-1234-4234-8234-123456789012","revision":1e999}',
    b'{"id":"12345678-1234-4234-8234-123456789012","revision":"3"}',
    b'{"id":"12345678-1234-4234-8234-123456789012","revision":0}',
    b"9" * 4096,
    b"\xff",
]


@pytest.mark.parametrize("mark", DAMAGED_MARKS, ids=lambda mark: repr(mark)[:40])
def test_a_damaged_mark_keeps_nobody_from_opening_and_is_written_anew(
    store: DirectoryStore, folder: Path, mark: bytes
) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.seen", mark)
    assert store.load("homelab") == document(3)
    store.remember(document(3))
    assert json.loads((folder / "homelab.seen").read_bytes())["revision"] == 3


def test_a_forged_revision_that_nobody_proved_does_not_lock_the_real_document_out(
    store: DirectoryStore, folder: Path
) -> None:
    write_up_to(store, 3)
    put(folder / "homelab.json", to_bytes(document(2**53 - 1)))
    store.load("homelab")
    put(folder / "homelab.json", to_bytes(document(3)))
    assert store.load("homelab") == document(3)


@pytest.mark.parametrize("kept", [True, False], ids=["history", "no history"])
def test_a_document_that_was_lost_is_not_one_that_was_never_made(
    store: DirectoryStore, folder: Path, kept: bool
) -> None:
    write_up_to(store, 3 if kept else 1)
    (folder / "homelab.json").unlink()
    with pytest.raises(RolledBack) as raised:
        store.load("homelab")
    assert ("history" in raised.value.next_step) == kept
    with pytest.raises(NotFound):
        store.load("homelab", accept_rollback=True)


def test_what_is_no_longer_there_is_not_remembered(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 3)
    before = snapshot(folder)
    store.remember(document(2))
    (folder / "homelab.seen").chmod(0o644)
    store.remember(document(2))  # nor is a mark that others can write to a failure
    (folder / "homelab.seen").chmod(0o600)
    assert snapshot(folder) == before


def test_a_deleted_mark_is_written_anew(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 3)
    (folder / "homelab.seen").unlink()
    store.remember(store.load("homelab"))
    put(folder / "homelab.json", to_bytes(document(2)))
    with pytest.raises(RolledBack):
        store.load("homelab")


def test_a_mark_never_goes_back_when_somebody_writes_while_it_is_read(
    store: DirectoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_up_to(store, 3)
    (folder / "homelab.seen").unlink()  # so that load() must write it
    real = DirectoryStore._seen
    others = [DirectoryStore(folder)]

    def seen_late(self: DirectoryStore, name: str) -> bytes | None:
        if self is store and others:
            others.pop().save(document(4), after=3)  # between the reading and the marking
        return real(self, name)

    monkeypatch.setattr(DirectoryStore, "_seen", seen_late)
    assert store.load("homelab") == document(4)  # and no false alarm of a rollback
    store.remember(document(4))
    assert json.loads((folder / "homelab.seen").read_bytes())["revision"] == 4


# -- leftovers and failures ------------------------------------------------------------------


def test_what_a_crash_left_is_replaced_whatever_it_is(store: DirectoryStore, folder: Path) -> None:
    write_up_to(store, 1)
    for name in ("homelab.json.new", "homelab.seen.new", "history/homelab.1.json.new"):
        (folder / name).write_bytes(b"half a docum")
        (folder / name).chmod(0o666)
    (folder / "homelab.json.new").unlink()
    (folder / "homelab.json.new").symlink_to(folder.parent / "elsewhere")
    store.save(document(2), after=1)
    assert store.load("homelab") == document(2)
    assert not list(folder.rglob("*.new"))
    assert not (folder.parent / "elsewhere").exists()


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_mark(
    store: DirectoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_up_to(store, 1)
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append(f"sync {_name_of(descriptor)}")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        steps.append(f"rename {Path(target).name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    store.save(document(2), after=1)
    assert steps == [
        "sync homelab.1.json.new",
        "rename homelab.1.json",
        "sync history",
        "sync homelab.seen.new",
        "sync homelab.json.new",
        "rename homelab.json",
        "sync state",
        "rename homelab.seen",
        "sync state",
    ]


def _name_of(descriptor: int) -> str:
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def test_a_new_folder_is_on_the_disk_before_its_first_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(_name_of(descriptor))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    DirectoryStore(tmp_path / "a" / "state").save(document(1), after=0)
    assert synced[:3] == [tmp_path.name, "a", "state"]


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_whichever_call_fails_the_answer_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, revision: int
) -> None:
    """Saved means the new one is there; failed means the old one is, or none."""
    outcomes = []
    for failing in range(40):
        store = DirectoryStore(tmp_path / f"{failing}")
        write_up_to(store, revision - 1)
        with monkeypatch.context() as patch:
            calls = fail_once(patch, call, failing)
            try:
                store.save(document(revision), after=revision - 1)
                outcomes.append(True)
            except WriteFailed:
                outcomes.append(False)
        there = revision if outcomes[-1] else revision - 1
        if there:
            assert store.load("homelab") == document(there)
        else:
            with pytest.raises(NotFound):
                store.load("homelab")
        assert not list(store.folder.glob("homelab.json.new"))
        if calls() <= failing:
            break
    assert False in outcomes
    assert outcomes[-1] is True


def fail_once(patch: pytest.MonkeyPatch, call: str, failing: int) -> Callable[[], int]:
    """Let the n-th call of an ``os`` function fail; how many calls there were."""
    real, count = getattr(os, call), 0

    def failing_call(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count == failing + 1:
            raise OSError(errno.EIO, "put in error")
        return real(*args, **kwargs)

    patch.setattr(os, call, failing_call)
    return lambda: count


def test_a_disk_that_fails_for_good_is_said_so(
    store: DirectoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_up_to(store, 1)

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "put in error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        patch.setattr(os, "unlink", fail)
        with pytest.raises(WriteFailed):
            store.save(document(2), after=1)
    assert store.load("homelab") == document(1)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }

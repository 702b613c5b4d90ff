"""Documents as files in one folder. This is the default store.

    <folder>/<name>.json             the document
    <folder>/<name>.seen             the highest revision ever seen here, and its digest
    <folder>/<name>.backups          what known backups of servers need of its keys
    <folder>/<name>.holds            the servers that a person holds
    <folder>/<name>.migrations       the servers on their way to another seal
    <folder>/history/<name>.<r>.json the last documents before it
    <folder>/write.lock              held while writing

A write goes to a new file, which is synced and renamed over the old one; then the folder is
synced. The lock keeps a second writer out, and the revision keeps a late one out. Files are 0600
and folders 0700; wider ones are refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, cast

from kluis.errors import (
    Conflict,
    DocumentError,
    NotFound,
    RolledBack,
    StoreError,
    WriteFailed,
)
from kluis.keyring import backups as known_backups
from kluis.keyring import holds as held_servers
from kluis.keyring import migrations as migrated_servers
from kluis.keyring.backups import MAX_BACKUPS_BYTES, Backups
from kluis.keyring.crypto import sha256
from kluis.keyring.document import (
    MAX_DOCUMENT_BYTES,
    UUID_PATTERN,
    Document,
    from_bytes,
    to_bytes,
)
from kluis.keyring.holds import MAX_HOLDS_BYTES, Holds
from kluis.keyring.migrations import MAX_MIGRATIONS_BYTES, Migrations
from kluis.keyring.strict import Fields, read_json
from kluis.store.files import (
    make_folder,
    prepare,
    put,
    refuse_wide,
    replace,
    unreadable,
    write_failed,
)

R = TypeVar("R")

KEPT: Final = 10
_MARK_BYTES: Final = 4096


class DirectoryStore:
    """A folder of documents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._history = folder / "history"
        self._known: dict[Path, tuple[object, object]] = {}
        """Records as they were read last, and the stamps of their files."""

    def load(self, name: str, *, accept_rollback: bool = False) -> Document:
        """The document as it was last written; see Store.load."""
        if not accept_rollback:
            self._refuse_loss(name)
        document, data = self._read_document(name)
        if accept_rollback or self._seen(name) == _mark(document, data):
            return document
        with contextlib.ExitStack() as locked:
            with contextlib.suppress(WriteFailed):  # a full disk keeps nobody from opening
                locked.enter_context(self._locked())
            document, data = self._read_document(name)  # somebody may have written in between
            self._refuse_rollback(document, data)
        return document

    def remember(self, document: Document) -> None:
        """Mark a proven document as seen here; see Store.remember."""
        mark = _mark(document, to_bytes(document))
        with contextlib.suppress(StoreError, DocumentError):  # it is noted the next time
            if self._seen(document.name) == mark:
                return
            with self._locked():
                if self._read_document(document.name)[0] == document:
                    replace(self._seen_path(document.name), mark)

    def save(self, document: Document, *, after: int) -> None:
        """Write a document; see Store.save. Raises DocumentError when a damaged one rests here."""
        self._make_folders()
        with self._locked():
            old = self._read(document.name)
            found = 0 if old is None else self._parse(document.name, old).revision
            if found != after:
                raise Conflict(
                    f"{document.name} is at revision {found}, not {after}",
                    "somebody else wrote in between",
                    "look at the change, then try again",
                )
            if old is not None:
                replace(self._history / f"{document.name}.{found}.json", old)
            self._write(document, old)
            self._prune(document.name)

    def _write(self, document: Document, old: bytes | None) -> None:
        """The document, then its mark.

        Once the document is in its place nothing fails any more: what a caller is told was not
        written must not be there.
        """
        path, data = self._path(document.name), to_bytes(document)
        mark_path = self._seen_path(document.name)
        mark = prepare(mark_path, _mark(document, data))  # takes its room on the disk
        try:
            replace(path, data)
        except WriteFailed:
            self._put_back(path, old)
            with contextlib.suppress(OSError):
                mark.unlink()
            raise
        with contextlib.suppress(WriteFailed):  # remember() writes the mark anew
            put(mark, mark_path)

    def _put_back(self, path: Path, old: bytes | None) -> None:
        """Undo a write that got as far as the new name, but not safely onto the disk."""
        with contextlib.suppress(OSError, StoreError):
            if old is None:
                path.unlink(missing_ok=True)
            elif self._read_file(path, MAX_DOCUMENT_BYTES) != old:
                replace(path, old)

    def history(self, name: str) -> list[Path]:
        """The documents before the present one, newest first."""
        found = (
            (int(path.name.split(".")[-2]), path)
            for path in self._history.glob(f"{name}.*.json")
            if path.name.split(".")[-2].isdecimal()
        )
        return [path for _, path in sorted(found, reverse=True)]

    def load_backups(self, name: str) -> Backups:
        """The known backups; see Store.load_backups."""
        path = self._backups_path(name)
        return self._record(path, MAX_BACKUPS_BYTES, known_backups.from_bytes) or Backups()

    def save_backups(self, name: str, backups: Backups) -> None:
        """Write the known backups; see Store.save_backups."""
        self._make_folders()
        with self._locked():
            replace(self._backups_path(name), known_backups.to_bytes(backups))

    def load_holds(self, name: str) -> Holds:
        """The held servers; see Store.load_holds. The file is read only when it is another one."""
        path = self._holds_path(name)
        return self._if_changed(path, MAX_HOLDS_BYTES, held_servers.from_bytes) or Holds()

    def save_holds(self, name: str, holds: Holds) -> None:
        """Write the held servers; see Store.save_holds."""
        self._make_folders()
        with self._locked():
            replace(self._holds_path(name), held_servers.to_bytes(holds))

    def load_migrations(self, name: str) -> Migrations:
        """The servers on their way to another seal; see Store.load_migrations, and load_holds."""
        path, read = self.folder / f"{name}.migrations", migrated_servers.from_bytes
        return self._if_changed(path, MAX_MIGRATIONS_BYTES, read) or Migrations()

    def save_migrations(self, name: str, migrations: Migrations) -> None:
        """Write the migrations; see Store.save_migrations."""
        self._make_folders()
        with self._locked():
            path = self.folder / f"{name}.migrations"
            replace(path, migrated_servers.to_bytes(migrations))

    def _if_changed(self, path: Path, limit_bytes: int, read: Callable[[bytes], R]) -> R | None:
        """As ``_record``; a file that is the same as before is not read again."""
        stamp = _stamp(path)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = stamp, self._record(path, limit_bytes, read)
        return cast("R | None", known[1])

    def _record(self, path: Path, limit_bytes: int, read: Callable[[bytes], R]) -> R | None:
        data = self._read_file(path, limit_bytes + 1)
        try:
            return None if data is None else read(data)
        except DocumentError as error:
            error.seen = f"{path}: {error.seen}"
            raise

    def _parse(self, name: str, data: bytes) -> Document:
        try:
            document = from_bytes(data)
        except DocumentError as error:
            kept = self.history(name)
            error.seen = f"{self.folder / name}.json: {error.seen}"
            if kept:
                error.next_step = (
                    f"restore the last good one with cp {kept[0]} {self.folder / name}.json "
                    "and start with --accept-rollback"
                )
            raise
        if document.name != name:
            raise Conflict(
                f"{name}.json holds the keyring {document.name}",
                "the file was renamed or copied",
                f"move it back to {document.name}.json",
            )
        return document

    def _refuse_loss(self, name: str) -> None:
        """A document that was here and is gone is not one that was never made."""
        if self._read(name) is None and (self._seen(name) is not None or self.history(name)):
            kept = self.history(name)
            raise RolledBack(
                f"{self._path(name)} is gone; a keyring {name} was here",
                "it was removed, or the disk lost it; a new one would not open what it sealed",
                f"restore it: cp {kept[0]} {self._path(name)}, then --accept-rollback"
                if kept
                else f"restore it from a backup; or remove {self._seen_path(name)} to begin anew",
            )

    def _refuse_rollback(self, document: Document, data: bytes) -> None:
        seen = self._seen(document.name)
        if seen is None or seen == _mark(document, data):
            return
        known = _known(seen)
        if known is None:
            return  # a damaged mark proves nothing; remember() writes it anew
        if document.id == known[0] and document.revision > known[1]:
            return
        raise RolledBack(
            f"{document.name} is at revision {document.revision}; here {known[1]} was seen",
            "an older or another document was put in its place; it may bring back what was revoked",
            "put the newer one back, or start with --accept-rollback if you did this yourself",
        )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _seen_path(self, name: str) -> Path:
        return self.folder / f"{name}.seen"

    def _backups_path(self, name: str) -> Path:
        return self.folder / f"{name}.backups"

    def _holds_path(self, name: str) -> Path:
        return self.folder / f"{name}.holds"

    def _seen(self, name: str) -> bytes | None:
        return self._read_file(self._seen_path(name), _MARK_BYTES)

    def _read_document(self, name: str) -> tuple[Document, bytes]:
        data = self._read(name)
        if data is None:
            raise NotFound(
                f"there is no keyring {name} in {self.folder}",
                "it was never made here, or the folder is another one",
                "kluis apply makes it",
            )
        return self._parse(name, data), data

    def _read(self, name: str) -> bytes | None:
        try:
            refuse_wide(self.folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(self.folder, error) from None
        return self._read_file(self._path(name), MAX_DOCUMENT_BYTES + 1)

    def _read_file(self, path: Path, limit_bytes: int) -> bytes | None:
        try:
            with path.open("rb") as file:
                refuse_wide(path)
                return file.read(limit_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(path, error) from None

    def _make_folders(self) -> None:
        for folder in (self.folder, self._history):
            try:
                make_folder(folder)
            except OSError as error:
                raise write_failed(folder, error) from None
            refuse_wide(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.folder / "write.lock"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise write_failed(path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _prune(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the next write tries again
            for path in self.history(name)[KEPT:]:
                path.unlink()


def _mark(document: Document, data: bytes) -> bytes:
    mark = {"id": document.id, "revision": document.revision, "sha256": sha256(data).hex()}
    return json.dumps(mark).encode("ascii")


def _stamp(path: Path) -> object:
    """What changes whenever a file does; None when there is none. Raises Unsafe."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    return status.st_ino, status.st_size, status.st_ctime_ns  # which cp --preserve can't set back


def _known(mark: bytes) -> tuple[str, int] | None:
    """The keyring and the revision that a mark says were seen; None for a damaged one."""
    try:
        fields = Fields(read_json(mark), "mark")
        return fields.text("id", UUID_PATTERN), fields.integer("revision", 1)
    except DocumentError:
        return None

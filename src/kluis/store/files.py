"""Files that a crash leaves whole: written beside the old one, synced, renamed over it.

The folder is synced after the rename. Nothing here knows what is in the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kluis.errors import Unsafe, WriteFailed

LOCK_S: Final = 10.0
"""Until another process has to be done with a folder."""

_NEW: Final = ".new"
_PAUSE_S: Final = 0.02


def replace(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, or leave the old one whole. Raises WriteFailed."""
    put(prepare(path, data), path)


def prepare(path: Path, data: bytes) -> Path:
    """A new file beside ``path``, safely on the disk. Raises WriteFailed."""
    new = path.with_name(path.name + _NEW)
    try:
        new.unlink(missing_ok=True)  # a crash left it; its mode may be any
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise _given_up(new, path, error) from None
    return new


def put(new: Path, path: Path) -> None:
    """Rename what ``prepare`` gave over ``path``. Raises WriteFailed.

    When it was the folder that could not be synced, the new file is in its place already.
    """
    try:
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _given_up(new, path, error) from None


def rewrite(path: Path, data: bytes) -> None:
    """Write a file of a person's, or leave the old one whole; its mode and its owner stay.

    Raises WriteFailed.
    """
    try:
        old = path.stat()
    except OSError as error:
        raise write_failed(path, error) from None
    new = prepare(path, data)
    try:
        if (old.st_uid, old.st_gid) != (new.stat().st_uid, new.stat().st_gid):
            os.chown(new, old.st_uid, old.st_gid)
        new.chmod(stat.S_IMODE(old.st_mode))
    except OSError as error:
        raise _given_up(new, path, error) from None
    put(new, path)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask the same from writing in a folder. Raises WriteFailed.

    Blocks for ``LOCK_S`` at most. A disk that can't lock folders keeps nobody away.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise write_failed(folder, error) from None
    try:
        _lock(folder, descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path, descriptor: int) -> None:
    ends_s = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends_s:
                raise WriteFailed(
                    f"another process is writing in {folder}, for {LOCK_S:g} s already",
                    "two of them would write over each other; nothing was written",
                    "look whether another kluis command hangs, then try again",
                ) from None
            time.sleep(_PAUSE_S)
        except OSError:
            return
        else:
            return


def make_folder(folder: Path) -> None:
    """The folder and those above it, each safely entered in the one above. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_wide(path: Path) -> None:
    """Raise Unsafe when the group or others may do anything with a file or folder."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        narrow = "700" if path.is_dir() else "600"
        raise Unsafe(
            f"{path} is open to others (mode {mode:04o})",
            "a keyring's state belongs to the user kluis runs as, alone",
            f"chmod {narrow} {path}",
        )


def unreadable(path: Path, error: OSError) -> Unsafe:
    """The error for a file that is there and can't be read."""
    return Unsafe(
        f"{path} can't be read: {error.strerror}",
        "the user kluis runs as may not read it",
        f"chown it to that user, and chmod 600 {path}",
    )


def write_failed(path: Path, error: OSError) -> WriteFailed:
    """The error for a write that did not happen."""
    return WriteFailed(
        f"{path} can't be written: {error.strerror}",
        "the disk is full or read-only, or the folder is not ours; the old document is untouched",
        "make room or mend the permissions, then try again",
    )


def _given_up(new: Path, path: Path, error: OSError) -> WriteFailed:
    with contextlib.suppress(OSError):
        new.unlink(missing_ok=True)
    return write_failed(path, error)

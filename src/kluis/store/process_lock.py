"""One process at a time serves or changes a state folder; the kernel forgets the dead ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from kluis.errors import AlreadyRunning, WriteFailed


class ProcessLock:
    """An exclusive lock on a file, for as long as the object is held. Dies with the process."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise AlreadyRunning(
                f"another kluis (process {pid or 'unknown'}) works on {path.parent}",
                "two of them would write over each other",
                "kluis status shows it; kluis serve watches servers too; or stop it first",
            ) from None
        except OSError as error:
            self.release()
            raise WriteFailed(
                f"{path} can't be locked: {error.strerror}",
                "the folder is read-only or not ours, or its disk knows no locks",
                "mend the permissions, then try again",
            ) from None
        with contextlib.suppress(OSError):  # a courtesy to the reader; a full disk has no room
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode("ascii"), 0)

    def release(self) -> None:
        """Let go of the lock; again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

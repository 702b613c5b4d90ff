"""Small files that say how the Kubernetes API is reached: bounded, and only ours to change."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from kluis.errors import NoApiAccess

MAX_FILE_BYTES: Final = 1 << 20

Content = bytes | Path
"""The bytes themselves, or the file that has them."""


def read(content: Content, what: str) -> bytes:
    """The bytes; ``what`` says what they are, for a person. Raises NoApiAccess."""
    if isinstance(content, bytes):
        return content
    try:
        # O_NONBLOCK: a pipe in place of the file must not be waited for
        descriptor = os.open(content, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            _check(content, what, os.fstat(descriptor))
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NoApiAccess(
            f"{content} can't be read: {error.strerror}",
            f"it should hold {what} for the Kubernetes API",
            "check the path, and that the user kluis runs as may read it",
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise _refused(content, f"has more than {MAX_FILE_BYTES} bytes", what)
    return data


def _check(path: Path, what: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is not a regular file", what)
    if status.st_mode & 0o022:
        raise NoApiAccess(
            f"others can write to {path} (mode {stat.S_IMODE(status.st_mode):04o})",
            "who can write to it can lead kluis to an API of their own",
            f"chmod go-w {path}",
        )


def _refused(path: Path, seen: str, what: str) -> NoApiAccess:
    return NoApiAccess(f"{path} {seen}", f"it should hold {what}", "check the path")

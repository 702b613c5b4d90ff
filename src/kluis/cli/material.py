"""Keys and shares on their way in: from standard input or an owner's file, never an argument."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kluis.cli import terminal
from kluis.errors import Unsafe, UsageError


def read(file: Path | None, limit_bytes: int) -> str:
    """The text of an export. Raises UsageError, or Unsafe for a file that others can read."""
    data = _of_input(limit_bytes) if file is None else _of_file(file, limit_bytes)
    if len(data) > limit_bytes:
        raise UsageError(
            f"the export has more than {limit_bytes} bytes",
            "no key is so large",
            "check that it is the export of one key",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(
            "the export is not text",
            "an export is JSON, and a backup is base64",
            "kluis key import --help says how to get one",
        ) from None


def shares(source: str, limit_bytes: int) -> str:
    """A server's shares, one a line: ``-`` is standard input, or a prompt that shows nothing.

    Raises UsageError, or Unsafe for a file that others can read.
    """
    if source == "-" and terminal.interactive():
        return "\n".join(_typed_shares())
    if source == "-":
        data = sys.stdin.buffer.read(limit_bytes + 1)
    else:
        data = _of_file(Path(source), limit_bytes)
    if len(data) > limit_bytes or not data.isascii():
        raise UsageError(
            "these are not the shares of a server",
            "a share is one line of hex or base64, and there are at most 255",
            "give the shares that the server's init printed, one a line",
        )
    return data.decode("ascii")


def _typed_shares() -> Iterator[str]:
    """Each is looked at when it was typed: the others are not typed again for one mistake."""
    from kluis.keyring.custody import parse_shares

    typed: list[str] = []
    while True:
        prompt = f"share {len(typed) + 1} (an empty line ends it): "
        line = next(iter(terminal.secret_lines(prompt)), "")
        if not line.strip():
            return
        try:
            parse_shares([*typed, line])
        except UsageError as error:
            terminal.error_beside(error)
            continue
        typed.append(line)
        yield line


def _of_input(limit_bytes: int) -> bytes:
    if terminal.interactive():
        raise UsageError(
            "standard input is a terminal",
            "an export is not typed, and what is pasted stays on the screen",
            "pipe it in: bao read … | kluis key import …; or name a file with --file",
        )
    return sys.stdin.buffer.read(limit_bytes + 1)


def _of_file(path: Path, limit_bytes: int) -> bytes:
    try:
        # O_NONBLOCK: a pipe in place of the file must not be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            _refuse_others(path, file)
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}",
            "it is another file's name, or not yours to read",
            "name the right file, or pipe it in",
        ) from None


def _refuse_others(path: Path, file: BinaryIO) -> None:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(
            f"{path} is not a regular file",
            "it is read from a file, or from standard input",
            "name the file, or pipe it in",
        )
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
        raise Unsafe(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
            if status.st_mode & 0o077
            else f"{path} belongs to another user (id {status.st_uid})",
            "whoever can read what is in it can unseal servers",
            f"chown it to yourself and chmod 600 {path}; better, pipe it in",
        )

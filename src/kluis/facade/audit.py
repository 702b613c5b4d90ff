"""The audit log: JSON lines, each with the SHA-256 of the line before it. No payload, ever.

A record is written before an answer is released; if it can't be written, nothing is released.
The chain shows a changed or missing line. It can't show that the last lines are missing:
compare the head with one that was noted elsewhere (``kluis status`` shows it).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kluis.errors import AuditError

GENESIS: Final = "0" * 64
MAX_LINE_BYTES: Final = 16 * 1024
_QUOTED: Final = json.encoder.encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: how many records came before, and the digest of the last."""

    seq: int = 0
    digest: str = GENESIS


class AuditLog:
    """Appends to a file, and follows it when it is rotated away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._inode = 0
        self._second = (0, "")
        self.head = Head()
        self._open()

    def record(self, fields: str) -> None:
        """Write one record. ``fields`` are members in JSON, made by ``members``.

        Raises AuditError; then nothing may be released.
        """
        seq = self.head.seq + 1
        line = f'{{"seq":{seq},"time":"{self._now()}",{fields},"prev":"{self.head.digest}"}}\n'
        data = line.encode("ascii")
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise self._failed(error) from None
        if written != len(data):
            self._take_back(written)
            raise self._failed(OSError(0, "no space for a whole record"))
        self.head = Head(seq, hashlib.sha256(data).hexdigest())

    def reopen_if_rotated(self) -> None:
        """Go on in a new file when the old one was moved or removed. Raises AuditError."""
        try:
            found = self.path.stat().st_ino
        except OSError:
            found = 0
        if found != self._inode:
            os.close(self._descriptor)
            self._create()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> None:
        self._create()
        whole, torn_bytes = _last_line(self.path)
        if torn_bytes:  # a crash while writing; the answer to that record was never released
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - torn_bytes)
        if whole:
            self.head = _head_after(self.path, whole)
        if torn_bytes:
            self.record(members(event="recovered", torn_bytes=str(torn_bytes)))

    def _create(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise self._failed(error) from None
        self._inode = os.fstat(self._descriptor).st_ino

    def _take_back(self, written: int) -> None:
        with contextlib.suppress(OSError):  # recovered at the next start
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)

    def _failed(self, error: OSError) -> AuditError:
        return AuditError(
            f"the audit log {self.path} can't be written: {error.strerror}",
            "what is not recorded is not released",
            "make room or mend the permissions; requests are answered again at once",
        )

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second[1]}.{int((now - second) * 1000):03d}Z"


def members(**fields: str) -> str:
    """Members of a JSON object, in the order given."""
    return ",".join(f'"{name}":{_QUOTED(value)}' for name, value in fields.items())


def _last_line(path: Path) -> tuple[bytes, int]:
    """The last whole line of a file, and how many bytes of a torn one follow it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * MAX_LINE_BYTES))
        tail = file.read()
    whole, newline, torn = tail.rpartition(b"\n")
    return whole[whole.rfind(b"\n") + 1 :] + newline, len(torn)


def _head_after(path: Path, line: bytes) -> Head:
    try:
        seq = json.loads(line)["seq"]
        if isinstance(seq, int):
            return Head(seq, hashlib.sha256(line).hexdigest())
    except (ValueError, KeyError, TypeError):
        pass
    raise AuditError(
        f"the last line of {path} is not an audit record",
        "another program wrote to the file, or it is another file",
        "move it away; kluis begins a new one",
    )


class Chain:
    """Checks files of a log, oldest first. ``first`` is the number of the first record seen.

    ``met`` tells whether a record with the ``expected`` digest was among them.
    """

    def __init__(self, expected: str = "") -> None:
        self.head = Head()
        self.first = 0
        self.met = False
        self._expected = expected

    def check(self, path: Path) -> None:
        """Follow the chain through a file. Raises AuditError and says which line is wrong."""
        for number, line in enumerate(_lines(path), 1):
            self._follow(path, number, line)

    def _follow(self, path: Path, number: int, line: bytes) -> None:
        try:
            record = json.loads(line)
            seq, previous = int(record["seq"]), str(record["prev"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _broken(path, number, "it is not an audit record") from None
        if not self.first:
            self.first = seq
            self.head = Head(seq - 1, previous if seq > 1 else GENESIS)
        if seq != self.head.seq + 1:
            raise _broken(path, number, f"record {self.head.seq + 1} should be here, found {seq}")
        if previous != self.head.digest:
            raise _broken(path, number, "the record before it was changed")
        self.head = Head(seq, hashlib.sha256(line).hexdigest())
        self.met = self.met or self.head.digest == self._expected


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise AuditError(
            f"{path} can't be read: {error.strerror}", "", "check the path and the permissions"
        ) from None


def _broken(path: Path, number: int, why: str) -> AuditError:
    return AuditError(
        f"{path} line {number}: the chain is broken: {why}",
        "somebody changed the log, or a line was lost",
        "compare with a copy; what came before this line is proven",
    )

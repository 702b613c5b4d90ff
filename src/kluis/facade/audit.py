"""The audit log: JSON lines, each with the SHA-256 of the line before it. No payload, ever.

A record is written before an answer is released; if it can't be written, nothing is released.
The chain shows a changed or missing line. It can't show that the last lines are missing:
compare the head with one that was noted elsewhere (``kluis status`` shows it).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kluis.errors import AuditError

GENESIS: Final = "0" * 64
MAX_LINE_BYTES: Final = 16 * 1024
_BEGIN: Final = b'{"seq":'
_CLOSED: Final = -1
_QUOTED: Final = json.encoder.encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: how many records came before, and the digest of the last."""

    seq: int = 0
    digest: str = GENESIS


class AuditLog:
    """Appends to a file, and follows it when it is rotated away.

    While the file can't be opened the log is closed, and every record fails.
    """

    def __init__(self, path: Path) -> None:
        """Raises AuditError, also for a file that is no audit log: it is left as it is."""
        self.path = path
        self._descriptor = _CLOSED
        self._file: tuple[int, int] | None = None
        self._second = (0, "")
        self.head = Head()
        self._open(begins=True)

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
            status = self.path.stat()
            found = status.st_dev, status.st_ino
        except OSError:
            found = None
        if found is None or found != self._file:
            self.close()
            self._open()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
        self._descriptor, self._file = _CLOSED, None  # the number is soon another file's

    def _open(self, *, begins: bool = False) -> None:
        """Open the file, and cut a torn record off. At the begin, go on from the last record."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_APPEND | os.O_RDWR | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
            self._continue(begins=begins)
        except OSError as error:
            self.close()
            raise self._failed(error) from None
        except AuditError:
            self.close()
            raise

    def _continue(self, *, begins: bool) -> None:
        status = os.fstat(self._descriptor)
        whole, torn = _tail(self._descriptor, status.st_size)
        head = _head_after(self.path, whole) if whole else Head()
        if not torn.startswith(_BEGIN[: len(torn)]) or len(torn) > MAX_LINE_BYTES:
            raise _foreign(self.path)
        if torn:  # a crash while writing; the answer to that record was never released
            os.ftruncate(self._descriptor, status.st_size - len(torn))
        self._file = status.st_dev, status.st_ino
        if begins:
            self.head = head
        if torn:
            self.record(members(event="recovered", torn_bytes=str(len(torn))))

    def _take_back(self, written: int) -> None:
        try:
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
        except OSError:
            self.close()  # nothing may follow half a record; opening the file again cuts it off

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
    """Members of a JSON object, in the order given, but those that are empty."""
    return ",".join([f'"{name}":{_QUOTED(value)}' for name, value in fields.items() if value])


def _tail(descriptor: int, size_bytes: int) -> tuple[bytes, bytes]:
    """The last whole line of a file, and what follows it of a torn one."""
    tail_bytes = min(size_bytes, 2 * MAX_LINE_BYTES)
    tail = os.pread(descriptor, tail_bytes, size_bytes - tail_bytes)
    whole, newline, torn = tail.rpartition(b"\n")
    return whole[whole.rfind(b"\n") + 1 :] + newline, torn


def _head_after(path: Path, line: bytes) -> Head:
    record = read_record(line)
    if record is None:
        raise _foreign(path)
    return Head(record.seq, hashlib.sha256(line).hexdigest())


@dataclass(frozen=True, slots=True)
class Record:
    """A record: its number, the digest of the one before it, and all its members."""

    seq: int
    previous: str
    members: Mapping[str, object]


def read_record(line: bytes) -> Record | None:
    """The record in a line; None for anything else. Nothing in it is proven yet."""
    try:
        found = json.loads(line)
        seq, previous = found["seq"], found["prev"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(seq) is int and seq > 0 and isinstance(previous, str) and line.endswith(b"\n"):
        return Record(seq, previous, found)
    return None


def _foreign(path: Path) -> AuditError:
    return AuditError(
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
            self.follow(path, number, line)

    def follow(self, path: Path, number: int, line: bytes) -> Mapping[str, object]:
        """Check one more line, which has this number in its file; its record. Raises AuditError."""
        record = read_record(line)
        if record is None:
            raise broken(path, number, "it is not a whole audit record")
        if not self.first:
            self.first = record.seq
            self.head = Head(record.seq - 1, record.previous if record.seq > 1 else GENESIS)
        if record.seq != self.head.seq + 1:
            missing = f"record {self.head.seq + 1} should be here, found {record.seq}"
            raise broken(path, number, missing)
        if record.previous != self.head.digest:
            raise broken(path, number, "the record before it was changed")
        self.head = Head(record.seq, hashlib.sha256(line).hexdigest())
        self.met = self.met or self.head.digest == self._expected
        return record.members


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise AuditError(
            f"{path} can't be read: {error.strerror}", "", "check the path and the permissions"
        ) from None


def broken(path: Path, number: int, why: str) -> AuditError:
    """The error for a line that is not what the chain says."""
    return AuditError(
        f"{path} line {number}: the chain is broken: {why}",
        "somebody changed the log, or a line was lost",
        "compare with a copy; what came before this line is proven",
    )

"""What clients last did with keys, as the audit log tells: the present file and the rotated ones.

Which version a server needs shows when it unseals: it decrypts its root key, and right after that
its recovery key where the versions differ. So its need is the lowest version among the decrypts
of its last unseal: those since it last renewed its token, which it does at every start, and less
than a minute apart.

Files of a log continue each other's chain; a service that starts on an empty file begins a new
one. Where records are missing in between, what was before them proves nothing and is forgotten.
"""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from io import BufferedIOBase
from pathlib import Path
from typing import Final

from kluis.errors import AuditError
from kluis.facade.audit import MAX_LINE_BYTES, Chain, Record, broken, read_record
from kluis.keyring.document import TIME_PATTERN

_UNSEAL_S: Final = 60.0
_WRAPS: Final = ("wrap", "rewrap")
_TIME_PATTERN: Final = TIME_PATTERN.removesuffix("Z") + r"(?:\.[0-9]{3})?Z"


@dataclass(frozen=True, slots=True)
class Use:
    """What one client last did with one key. Versions are 0, and times empty, where it did not.

    ``unsealed`` is the lowest version that its last unseal needed. Times are RFC 3339 in UTC.
    """

    unsealed: int = 0
    unsealed_at: str = ""
    wrapped: int = 0
    wrapped_at: str = ""
    start: int = 0
    """Which of the client's starts on record this unseal belongs to."""

    def unseal(self, version: int, at: str, start: int) -> Use:
        """With one more decrypt. ``at`` is a time as the log has it."""
        lowest = version
        if self.unsealed and start == self.start and _between_s(self.unsealed_at, at) < _UNSEAL_S:
            lowest = min(version, self.unsealed)
        return replace(self, unsealed=lowest, unsealed_at=at, start=start)

    def wrap(self, version: int, at: str) -> Use:
        """With one more encrypt."""
        return replace(self, wrapped=version, wrapped_at=at)


_PACKED: Final = re.compile(r"\.(xz|bz2|zst|lz4)$")


class Usage:
    """Reads a log once, and what is added to it afterwards."""

    def __init__(self, path: Path, expected: str = "") -> None:
        """``expected`` is the digest of a record that must be in the log; empty for none."""
        self.complete = True
        """Whether every record there ever was has been read, as far as the log can tell."""
        self._path = path
        self._expected = expected
        self._chain = Chain(expected)
        self._met = not expected
        self._uses: dict[tuple[str, str], dict[str, Use]] = {}
        self._starts: Counter[str] = Counter()
        self._present: BufferedIOBase | None = None
        self._number = 0
        self._torn = b""

    def read(self) -> None:
        """Read all there is; it may take long. Raises AuditError."""
        if _unreadable_ones(self._path):
            self.complete = False
        for path in _rotated(self._path):
            with _opened(path) as file:
                for number, line in enumerate(_lines(path, file), 1):
                    self._take(path, number, line)
        if self._path.exists():
            self._present = _opened(self._path)
            self.catch_up()
        if not (self._met or self._chain.met):
            raise AuditError(
                f"the last records of {self._path} are missing",
                "the file was cut, or moved where it is not looked for",
                f"put it back, or beside it as {self._path.name}.1",
            )

    def catch_up(self) -> None:
        """Read what was written since. Raises AuditError."""
        if self._present is None:
            return
        for line in _lines(self._path, self._present):
            whole = self._torn + line
            if not whole.endswith(b"\n") and len(whole) <= MAX_LINE_BYTES:
                self._torn = whole  # it is being written just now, and its answer still waits
                return
            self._torn = b""
            self._number += 1
            self._take(self._path, self._number, whole)

    def close(self) -> None:
        """Close the file."""
        if self._present is not None:
            self._present.close()
            self._present = None

    def of(self, keyring: str, key: str) -> Mapping[str, Use]:
        """What clients did with a key, by their names."""
        return self._uses.get((keyring, key), {})

    def _forget(self) -> None:
        """After a gap of clients is only known that they used the key."""
        self.complete = False
        self._uses = {key: dict.fromkeys(uses, Use()) for key, uses in self._uses.items()}

    def _take(self, path: Path, number: int, line: bytes) -> None:
        if number == 1:
            self._join(read_record(line))
        members = self._chain.follow(path, number, line)
        if members.get("verdict") != "released":
            return
        client, what = str(members.get("client")), members.get("what")
        if members.get("operation") == "renew-self":
            self._starts[client] += 1
        elif what == "unseal" or what in _WRAPS:
            uses = self._uses.setdefault((str(members.get("keyring")), str(members.get("key"))), {})
            version, at = _version(path, number, members), str(members.get("time"))
            use = uses.get(client, Use())
            unseals = what == "unseal"
            start = self._starts[client]
            uses[client] = use.unseal(version, at, start) if unseals else use.wrap(version, at)

    def _join(self, record: Record | None) -> None:
        """Go on in another file: with the same chain, with a new one, or after a gap."""
        if record is None:
            return
        head, begun = self._chain.head, bool(self._chain.first)
        if begun and (record.seq, record.previous) == (head.seq + 1, head.digest):
            return
        if record.seq != 1:
            self._forget()
        self._met = self._met or self._chain.met
        self._chain = Chain(self._expected)


def _unreadable_ones(path: Path) -> bool:
    """Whether the log was rotated into files that kluis can't unpack."""
    beside = path.parent.glob(glob.escape(path.name) + "[.-]*")
    return any(_PACKED.search(other.name) for other in beside)


def _rotated(path: Path) -> list[Path]:
    """The files that a log was rotated into, oldest first: ``audit.jsonl.1``, ``…-20260102.gz``."""
    found: list[tuple[str, int, Path]] = []
    for other in path.parent.glob(glob.escape(path.name) + "[.-]*"):
        if _PACKED.search(other.name) or not other.is_file():
            continue  # a gap, then
        with _opened(other) as file:
            first = next(iter(_lines(other, file)), b"")
        if not first:
            continue
        record = read_record(first)
        if record is None:
            raise broken(other, 1, "it is not a whole audit record")
        found.append((str(record.members.get("time")), record.seq, other))
    return [other for _, _, other in sorted(found)]


def _opened(path: Path) -> BufferedIOBase:
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise _unreadable(path, error.strerror or "") from None


def _lines(path: Path, file: BufferedIOBase) -> Iterable[bytes]:
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or "it is damaged") from None


def _unreadable(path: Path, why: str) -> AuditError:
    return AuditError(
        f"{path} can't be read: {why}",
        "without it nobody knows which versions clients still need",
        "mend the file or its permissions; one that is no part of the log, move elsewhere",
    )


def _version(path: Path, number: int, members: Mapping[str, object]) -> int:
    """The version that a record names; it must also have a time that can be read."""
    version, at = members.get("version"), members.get("time")
    numbered = isinstance(version, str) and re.fullmatch(r"[1-9][0-9]{0,4}", version)
    if numbered and isinstance(at, str) and re.fullmatch(_TIME_PATTERN, at):
        return int(numbered[0])
    raise broken(path, number, "it does not say which version was used, and when")


def _between_s(before: str, after: str) -> float:
    first, second = datetime.fromisoformat(before), datetime.fromisoformat(after)
    return (second - first).total_seconds()

"""The contract of a hook: something that is done once after every recovery of a server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from kluis.errors import KluisError
from kluis.servers.declared import Server

MAX_SHOWN: Final = 10
MAX_WORDS_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Recovered:
    """A server is back. ``at`` is in UTC; ``address`` is of the node that does its work now."""

    server: Server
    at: datetime
    address: str

    @property
    def moment(self) -> str:
        """``at`` as RFC 3339 has it, in whole seconds."""
        return self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Report:
    """What a hook did: in words, a line each, and in numbers.

    A ``failure`` beside them says that it did not do all of its work.
    """

    words: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    failure: KluisError | None = None


class Hook(Protocol):
    """One hook. The same one may run for several servers at a time, so it keeps no state."""

    @property
    def kind(self) -> str:
        """The word for it in kluis.toml."""
        ...

    @property
    def name(self) -> str:
        """Its name in kluis.toml."""
        ...

    @property
    def timeout_s(self) -> float:
        """When it gives up by itself, with a report of how far it came."""
        ...

    async def run(self, recovery: Recovered) -> Report:
        """Do it. Raises KluisError when nothing, or not enough, could be done."""
        ...


@dataclass(frozen=True, slots=True)
class Woken:
    """What came of one hook after one recovery. ``at`` is when it ended, ``seconds`` how long."""

    server: str
    hook: str
    kind: str
    ok: bool
    at: datetime
    seconds: float
    words: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    failure: KluisError | None = None

    def described(self) -> dict[str, object]:
        """As JSON has it."""
        told: dict[str, object] = {
            "server": self.server,
            "hook": self.hook,
            "kind": self.kind,
            "ok": self.ok,
            "at": self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": round(self.seconds, 3),
            "words": list(self.words),
            "counts": dict(self.counts),
        }
        if self.failure is not None:
            seen, means, after = self.failure.seen, self.failure.means, self.failure.next_step
            told["failure"] = {"seen": seen, "means": means, "next": after}
        return told


def shown(names: list[str]) -> str:
    """Names for a person, a few of them, and how many more there are."""
    more = len(names) - MAX_SHOWN
    return ", ".join(sorted(names)[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def plain(text: str) -> str:
    """Text from outside as a line that a terminal can show: printable, and not long."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * MAX_WORDS_CHARS])
    return re.sub(" +", " ", printable).strip()[:MAX_WORDS_CHARS]

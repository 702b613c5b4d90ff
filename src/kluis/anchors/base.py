"""The contract of an anchor: it seals 32 bytes and opens them again. It knows no policies.

A new kind implements ``_seal``, ``_open`` and ``_probe``; the rest has defaults. Every failure is
an AnchorError of one of five classes. The base class sees to it that nothing else comes out, that
every call ends by its deadline, and that the text of a foreign exception, which could carry a
secret, goes nowhere.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

from kluis.anchors.threads import Threads
from kluis.errors import AnchorError, Damaged, DocumentError, Misconfigured, Unreachable
from kluis.keyring.strict import JSON, canonical, read_canonical
from kluis.keyring.tree import MAX_SEALED_BYTES
from kluis.secret import Secret

T = TypeVar("T")


KNOCK_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often an anchor that is there, and yet can't open, is asked again: seconds.

    After every failure in a row the rest doubles, from ``first_s`` to ``last_s``.
    """

    first_s: float
    last_s: float

    def rest_s(self, failures: int) -> float:
        """The least time between two asks after so many failures in a row, counted from 1."""
        return min(self.last_s, self.first_s * 2.0 ** min(failures - 1, 16))


LOCAL: Final = Pace(0.5, 0.5)
NETWORK: Final = Pace(5.0, 5.0)
COSTLY: Final = Pace(5.0, 60.0)
"""For those where an ask costs money, or one of a few PIN tries."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person should know of an anchor that works: a token that expires, say. A line each."""

    seen: str
    means: str
    next_step: str

    def says_as(self, other: Notice | None) -> bool:
        """Whether the other one is about the same; what was seen may carry a time that runs."""
        return other is not None and (self.means, self.next_step) == (other.means, other.next_step)


class Anchor(ABC):
    """One anchor. Subclasses implement ``_seal``, ``_open`` and ``_probe``."""

    kind: ClassVar[str]
    needs_person: bool = False
    """True while the anchor can't be asked because a person must enter something first."""
    pace: Pace = LOCAL
    heals: bool = True
    """False where a person wants to be asked before its leaf is sealed anew."""
    notice: Notice | None = None
    """What the last call noticed, though it went well."""

    def __init__(self, name: str, deadline_s: float = 10.0) -> None:
        self.name = name
        self.deadline_s = deadline_s
        self._threads = Threads()

    async def seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        """What the anchor makes of a secret, bound to ``context``. Raises AnchorError."""
        return await self._bounded(self._seal_for_document(secret, context))

    async def open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        """The secret that was sealed under the same ``context``. Raises AnchorError."""
        return await self._bounded(self._open(sealed, context))

    async def probe(self) -> None:
        """Returns when the anchor could open now, without opening. Raises AnchorError."""
        await self._bounded(self._probe())

    async def knock(self) -> None:
        """Returns when the anchor is there and worth asking. Raises AnchorError.

        A knock is no ask: it costs no money, no PIN try, shows no credential, and may be made
        twice a second for days.
        """
        if self._threads.crowded:  # by earlier knocks, say: what is left is for real asks
            raise Unreachable(
                "many earlier calls hang", "it does not answer", "check that it runs and answers"
            )
        await self._bounded(self._knock(), min(KNOCK_S, self.deadline_s))

    async def outdated(self, sealed: Mapping[str, JSON]) -> str:
        """Why a leaf that opens should be sealed anew all the same; empty when it need not.

        Raises AnchorError.
        """
        return await self._bounded(self._outdated(sealed))

    async def show(self) -> Mapping[str, JSON]:
        """What a person should see of it: its keys' names, versions, thumbprints. No secrets.

        Raises AnchorError.
        """
        return await self._bounded(self._show())

    async def create_key(self) -> str:
        """Make the key that the settings name, where there is none; what was made, in words.

        Raises AnchorError.
        """
        return await self._bounded(self._create_key())

    @abstractmethod
    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]: ...

    @abstractmethod
    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret: ...

    @abstractmethod
    async def _probe(self) -> None: ...

    async def _knock(self) -> None:
        return

    async def _outdated(self, sealed: Mapping[str, JSON]) -> str:  # noqa: ARG002 - of those it needs
        return ""

    async def _show(self) -> Mapping[str, JSON]:
        return {}

    async def _create_key(self) -> str:
        raise Misconfigured(
            f"{self.name} is of kind {self.kind}, for which kluis makes no key",
            "its secret comes from elsewhere",
            "docs/ANCHORS.md says how to set it up",
        )

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """What a call gives that may block: it runs in a thread; see Threads."""
        return await self._threads.run(call)

    async def _seal_for_document(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        sealed = dict(await self._seal(secret, context))
        read_canonical(canonical(sealed), MAX_SEALED_BYTES)  # what no document takes is refused
        return sealed

    async def _bounded(self, call: Coroutine[None, None, T], deadline_s: float | None = None) -> T:
        """The outcome of a call, in time: also one that ignores its cancellation is left behind."""
        deadline_s = self.deadline_s if deadline_s is None else deadline_s
        task = asyncio.create_task(call)
        task.add_done_callback(_take_note)
        try:
            done, _ = await asyncio.wait({task}, timeout=deadline_s)
        finally:
            task.cancel()
        if not done:
            raise Unreachable(
                f"no answer within {deadline_s:g} s",
                "it hangs, or the way to it is cut",
                "check that it runs and is reachable from here",
            )
        return self._outcome(task)

    def _outcome(self, task: asyncio.Task[T]) -> T:
        try:
            return task.result()
        except AnchorError:
            raise
        except (TimeoutError, asyncio.CancelledError):  # the anchor's own: before the deadline
            raise Unreachable(
                "the call was broken off",
                "the connection to it was closed or timed out",
                "check that it runs and is reachable from here",
            ) from None
        except DocumentError as error:
            raise Damaged(
                f"the sealed bytes can't be read: {error.seen}",
                "the leaf was damaged, or written by another version",
                "once the keyring is open by another way, kluis apply seals it anew",
            ) from None
        except Exception as error:  # noqa: BLE001 - its text, which may carry a secret, ends here
            raise Misconfigured(
                f"unexpected {type(error).__name__}",
                f"the {self.kind} anchor met a case it does not know",
                "check the settings of the anchor, and report this",
            ) from None


def _take_note(task: asyncio.Task[T]) -> None:
    if not task.cancelled():
        task.exception()  # of a call that was left behind nobody else asks it

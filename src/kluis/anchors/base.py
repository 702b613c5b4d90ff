"""The contract of an anchor: it seals 32 bytes and opens them again. It knows no policies.

Every failure is an AnchorError of one of five classes. The base class sees to it that nothing
else comes out, that every call ends by its deadline, and that the text of a foreign exception,
which could carry a secret, goes nowhere.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import ClassVar, TypeVar

from kluis.anchors.threads import Threads
from kluis.errors import AnchorError, Damaged, DocumentError, Misconfigured, Unreachable
from kluis.keyring.strict import JSON, canonical, read_canonical
from kluis.keyring.tree import MAX_SEALED_BYTES
from kluis.secret import Secret

T = TypeVar("T")


class Anchor(ABC):
    """One anchor. Subclasses implement ``_seal``, ``_open`` and ``_probe``."""

    kind: ClassVar[str]
    needs_person: bool = False
    """True while the anchor can't be asked because a person must enter something first."""
    probe_is_free: bool = False
    """True when a probe costs nothing: no bill, no PIN try, no network."""

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

    @abstractmethod
    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]: ...

    @abstractmethod
    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret: ...

    @abstractmethod
    async def _probe(self) -> None: ...

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """What a call gives that may block: it runs in a thread; see Threads."""
        return await self._threads.run(call)

    async def _seal_for_document(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        sealed = dict(await self._seal(secret, context))
        read_canonical(canonical(sealed), MAX_SEALED_BYTES)  # what no document takes is refused
        return sealed

    async def _bounded(self, call: Coroutine[None, None, T]) -> T:
        """The outcome of a call, in time: also one that ignores its cancellation is left behind."""
        task = asyncio.create_task(call)
        task.add_done_callback(_take_note)
        try:
            done, _ = await asyncio.wait({task}, timeout=self.deadline_s)
        finally:
            task.cancel()
        if not done:
            raise Unreachable(
                f"no answer within {self.deadline_s:g} s",
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

"""A watch that goes on: over closed connections, expired versions and an API that is away.

It resumes at the last version that it saw, in an object or a bookmark. When the API no longer keeps
that version (410), all objects are listed anew and handed over as ``Listed``: what is not among
them is gone. It ends only by an error that no waiting cures.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

from kluis.errors import ApiGone, ApiRefused, ApiUnreachable, KubernetesError
from kluis.kubernetes.api import Api
from kluis.kubernetes.objects import Object, member, number, text, version

MAX_EVENT_BYTES: Final = 4 << 20
WATCH_S: Final = 30
"""The API ends a watch after so long; a connection that died in silence costs no more."""
GRACE_S: Final = 10.0
SETTLED_S: Final = 1.0
"""A connection that lasted so long was a good one: the next is made at once."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything that there is now, at the start and after a gap."""

    items: Sequence[Object]


@dataclass(frozen=True, slots=True)
class Changed:
    """An object as it is now: new, or changed."""

    object: Object


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object as it was last: it is gone, or the selector no longer fits it."""

    object: Object


Change = Listed | Changed | Deleted
T = TypeVar("T")
List = Callable[[], Awaitable[tuple[Sequence[Object], str]]]


class Watch:
    """The changes of a collection. ``start`` is a version; None: from a list of what there is.

    ``trouble`` is why nothing comes at the moment; None when all is well.
    """

    def __init__(
        self, api: Api, path: str, selectors: dict[str, str], listing: List, start: str | None
    ) -> None:
        self.trouble: KubernetesError | None = None
        self._api = api
        self._path = path
        self._selectors = selectors
        self._list = listing
        self._version = start
        self._failures = 0

    async def changes(self) -> AsyncGenerator[Change]:
        """Every change, for as long as it is asked. Raises KubernetesError."""
        while True:
            started = asyncio.get_running_loop().time()
            try:
                async with aclosing(self._once()) as changes:
                    async for change in changes:
                        yield change
            except ApiGone:
                self._version = None
            except (ApiUnreachable, ApiRefused) as error:
                if isinstance(error, ApiRefused) and not _passes(error):
                    raise
                self.trouble = error
            if asyncio.get_running_loop().time() - started > SETTLED_S:
                self._failures = 0
            await self._pause()

    async def _once(self) -> AsyncGenerator[Change]:
        """The changes until a connection ends; first a list, where there is no version."""
        if self._version is None:
            items, self._version = await self._list()
            self.trouble = None
            yield Listed(items)
        async with aclosing(self._lines()) as lines:
            async for line in lines:
                self._failures = 0
                change = self._change(self._api.parse(line))
                if change is not None:
                    yield change

    async def _lines(self) -> AsyncGenerator[bytes]:
        # A deadline must not span a yield: it would break off whoever takes the changes.
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(WATCH_S),
            **self._selectors,
        }
        async with AsyncExitStack() as stack:
            answer = stack.enter_async_context(self._api.answer("GET", self._path, query))
            response = await self._in_time(answer, self._api.timeout_s)
            self.trouble = None
            line = bytearray()
            while chunk := await self._in_time(response.content.readany(), WATCH_S + GRACE_S):
                first, *others = chunk.split(b"\n")
                line += first
                for start in others:
                    yield bytes(line)
                    line = bytearray(start)
                if len(line) > MAX_EVENT_BYTES:
                    raise self._api.too_large(MAX_EVENT_BYTES)

    async def _in_time(self, step: Awaitable[T], timeout_s: float) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await step
        except TimeoutError:
            raise self._api.hung() from None

    def _change(self, event: Object) -> Change | None:
        """What an event says; None when only the version went on. Raises KubernetesError."""
        kind, item = text(event, "type"), member(event, "object")
        if kind == "ERROR":
            raise self._api.refused(f"the watch of {self._path}", item, number(item, "code"))
        self._version = version(item) or self._version
        if kind in {"ADDED", "MODIFIED"}:
            return Changed(item)
        return Deleted(item) if kind == "DELETED" else None  # else a bookmark

    async def _pause(self) -> None:
        """None after a good connection, then longer and longer."""
        if self._failures:
            longest_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
            await asyncio.sleep(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 - a jitter
        self._failures += 1


def _passes(error: ApiRefused) -> bool:
    """Whether waiting may cure it."""
    return error.status == 429 or error.status >= 500

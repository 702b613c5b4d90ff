"""The Kubernetes API for the length of one hook: what passes by itself is waited out.

After a power cut the API may come back later than the server that everybody waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from kluis.errors import ApiConflict, ApiRefused, ApiUnreachable, KubernetesError
from kluis.kubernetes.access import Access
from kluis.kubernetes.client import Kubernetes
from kluis.kubernetes.objects import Object
from kluis.kubernetes.watching import Change

FIRST_PAUSE_S: Final = 0.2
LAST_PAUSE_S: Final = 5.0
AT_ONCE: Final = 8
"""Patches under way together: an API has its own limits for one client."""

FindAccess = Callable[[], Access]
T = TypeVar("T")


class Cluster:
    """An API in use. ``trouble`` is what it was last waited for; None when all is well."""

    def __init__(self, api: Kubernetes) -> None:
        self._api = api
        self._patches = asyncio.Semaphore(AT_ONCE)
        self.trouble: KubernetesError | None = None

    async def list(self, path: str) -> tuple[Sequence[Object], str]:
        """All objects of a collection, and the version to watch it from. Raises KubernetesError."""
        return await self._patiently(lambda: self._api.list(path))

    async def patch(self, path: str, body: Object) -> Object:
        """Merge into an object, also when somebody else writes at that moment.

        Raises KubernetesError.
        """
        async with self._patches:
            return await self._patiently(lambda: self._api.patch(path, body))

    async def annotate(self, path: str, key: str, value: str) -> Object:
        """Set one annotation. Raises KubernetesError."""
        return await self.patch(path, {"metadata": {"annotations": {key: value}}})

    async def create(self, path: str, body: Object) -> Object:
        """Make an object; the answer. Raises KubernetesError."""
        return await self._patiently(lambda: self._api.create(path, body))

    async def until(self, path: str, holds: Callable[[Object], bool], timeout_s: float) -> Object:
        """One object, as soon as ``holds`` is true of it. Raises KubernetesError."""
        return await self._api.until(path, holds, timeout_s)

    def watch(self, path: str, version: str) -> AsyncGenerator[Change]:
        """The changes of a collection from a version on, without end. Raises KubernetesError."""
        return self._api.watch(path, version)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What a call gives, asked again for as long as it takes. The caller has the deadline."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                answer = await call()
            except (ApiUnreachable, ApiRefused) as error:
                if not passes(error):
                    raise
                self.trouble = error
            else:
                self.trouble = None
                return answer
            await asyncio.sleep(pause_s)
            pause_s = min(LAST_PAUSE_S, pause_s * 2)


def passes(error: KubernetesError) -> bool:
    """Whether the same call may well succeed a little later."""
    if isinstance(error, ApiRefused):
        return isinstance(error, ApiConflict) or error.status == 429 or error.status >= 500
    return isinstance(error, ApiUnreachable)


def absent(error: KubernetesError) -> bool:
    """Whether the API says that there is no such object, or no such kind of objects."""
    return isinstance(error, ApiRefused) and error.status == 404

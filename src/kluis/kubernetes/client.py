"""The Kubernetes API, as far as kluis needs it: read, list, write, watch, and wait for a state.

async with Kubernetes(access.find(kubeconfig)) as api:
    stores, _ = await api.list(STORES.path())
    await api.patch(STORES.path(name=name), {"metadata": {"annotations": {key: value}}})
    await api.until(STORES.path(name=name), ready, timeout_s=60)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, Self

from kluis.errors import ApiGone, NotYet
from kluis.kubernetes.access import Access
from kluis.kubernetes.api import TIMEOUT_S, Api
from kluis.kubernetes.objects import Object, members, text
from kluis.kubernetes.watching import Change, Deleted, Listed, Watch

PAGE_ITEMS: Final = 250
MAX_LIST_BYTES: Final = 256 << 20
MAX_TURNS: Final = 3
FIELD_MANAGER: Final = "kluis"


class Kubernetes:
    """A connection to the API, used as ``async with``.

    Paths are those of the API, as ``Resource.path`` makes them. Every method raises
    KubernetesError: NoApiAccess, ApiUnreachable, ApiRefused (404, 403 and others by ``status``).
    """

    def __init__(self, access: Access, timeout_s: float = TIMEOUT_S) -> None:
        self._api = Api(access, timeout_s)

    @property
    def address(self) -> str:
        """Host and port, for a person."""
        return self._api.address

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.__aexit__()

    async def get(self, path: str) -> Object:
        """One object as it is now."""
        return (await self._api.call("GET", path))[0]

    async def list(
        self, path: str, label_selector: str = "", field_selector: str = ""
    ) -> tuple[Sequence[Object], str]:
        """All objects of a collection, and the version to watch it from.

        It is read in pages of one version; when the API has forgotten that version (410) before
        the last page, it is begun anew, at most three times.
        """
        selectors = _selectors(label_selector, field_selector)
        for _ in range(MAX_TURNS - 1):
            try:
                return await self._pages(path, selectors)
            except ApiGone:
                continue
        return await self._pages(path, selectors)

    async def _pages(self, path: str, selectors: dict[str, str]) -> tuple[Sequence[Object], str]:
        items: list[Object] = []
        bytes_left, more = MAX_LIST_BYTES, ""
        while True:
            query = {"limit": str(PAGE_ITEMS), **selectors, **({"continue": more} if more else {})}
            page, size = await self._api.call("GET", path, query)
            bytes_left -= size
            if bytes_left < 0:
                raise self._api.too_large(MAX_LIST_BYTES)
            items += members(page, "items")
            more = text(page, "metadata", "continue")
            if not more:
                return items, text(page, "metadata", "resourceVersion")

    async def patch(self, path: str, body: Object, resource_version: str = "") -> Object:
        """Merge ``body`` into an object (RFC 7386); the object as it is then.

        With ``resource_version`` only if it is still at that version, else ApiConflict is raised.
        A patch that changes nothing leaves the version as it is, and wakes nobody.
        """
        if resource_version:
            metadata = body.get("metadata")
            known = metadata if isinstance(metadata, dict) else {}
            body = {**body, "metadata": {**known, "resourceVersion": resource_version}}
        query = {"fieldManager": FIELD_MANAGER}
        return (await self._api.call("PATCH", path, query, body))[0]

    async def create(self, path: str, body: Object) -> Object:
        """Make an object in a collection, or ask a subresource such as an account's ``token``."""
        return (await self._api.call("POST", path, {"fieldManager": FIELD_MANAGER}, body))[0]

    def watch(
        self,
        path: str,
        resource_version: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[Change]:
        """The changes of a collection, without end: ``Listed``, ``Changed`` or ``Deleted``.

        From a version on; None: from a list of what there is, which comes first. A closed
        connection is made anew where it ended, and an API that is away is waited for. After a gap
        comes ``Listed``. Take it with ``contextlib.aclosing``, so that it is closed at once.
        """
        selectors = _selectors(label_selector, field_selector)
        return self._watch(path, resource_version, selectors).changes()

    def _watch(self, path: str, start: str | None, selectors: dict[str, str]) -> Watch:
        async def listing() -> tuple[Sequence[Object], str]:
            return await self._pages(path, selectors)

        return Watch(self._api, path, selectors, listing, start)

    async def until(self, path: str, holds: Callable[[Object], bool], timeout_s: float) -> Object:
        """One object, as soon as ``holds`` is true of it; ``path`` is that of the object.

        Its account needs the verbs ``list`` and ``watch`` on it.

        Raises:
            NotYet: not within ``timeout_s`` seconds.
            ApiUnreachable: the API was away when the time was over.
            ApiRefused: with status 404 where the object is not there, or no longer.
        """
        collection, _, name = path.rpartition("/")
        watch = self._watch(collection, None, _selectors("", f"metadata.name={name}"))
        last: Object | None = None
        try:
            async with asyncio.timeout(timeout_s), aclosing(watch.changes()) as changes:
                async for change in changes:
                    last = _last(change)
                    if last is None:
                        raise self._api.refused(f"GET {path}", _NO_LONGER, 404)
                    if holds(last):
                        return last
        except TimeoutError:
            pass
        raise watch.trouble or NotYet(
            f"{name} was not in the awaited state within {timeout_s:g} s",
            "what should bring it there has not, or not yet",
            "look at its status and its events: kubectl describe",
            last,
        )


_NO_LONGER: Final[Object] = {"reason": "NotFound", "message": "there is no such object"}


def _last(change: Change) -> Object | None:
    """The only object of a watch by name; None when it is not there."""
    if isinstance(change, Listed):
        return change.items[0] if change.items else None
    return None if isinstance(change, Deleted) else change.object


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: said for name, said in given.items() if said}

"""Watches: what changed after a version, bookmarks, and every way in which a watch ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from tests.support.kubernetes import reading
from tests.support.kubernetes.kinds import Object
from tests.support.kubernetes.refusals import Refusal
from tests.support.kubernetes.routes import Route
from tests.support.kubernetes.selectors import Matches
from tests.support.kubernetes.storage import Change, Storage

BOOKMARK_LEAD_S = 0.05


@dataclass(eq=False)
class Watcher:
    """One open watch. ``end`` makes it end: in order, or by a cut connection."""

    request: web.Request
    route: Route
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    end: Literal["", "close", "cut"] = ""
    bookmark: bool = False

    def wake(self) -> None:
        """Look for news; on the loop's thread only."""
        self.awake.set()


class Watches:
    """All open watches. Its methods are for the loop's thread."""

    def __init__(self, storage: Storage) -> None:
        self.open: set[Watcher] = set()
        self.bookmark_every_s = 60.0
        self._storage = storage

    def wake(self) -> None:
        """Something changed."""
        for watcher in self.open:
            watcher.wake()

    def end(self, how: Literal["close", "cut"]) -> None:
        """End all that are open now."""
        for watcher in self.open:
            watcher.end = how
            watcher.wake()

    def bookmark(self) -> None:
        """Tell all that asked for bookmarks where they are."""
        for watcher in self.open:
            watcher.bookmark = True
            watcher.wake()

    async def serve(self, request: web.Request, route: Route) -> web.StreamResponse:
        """Answer a request for a watch. Raises Refusal before anything is sent."""
        matches = reading.wanted(route.kind, request.query)
        start = reading.version_of(request.query.get("resourceVersion") or "0")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        watcher = Watcher(request, route)
        self.open.add(watcher)
        try:
            await answer.prepare(request)
            try:
                await self._stream(watcher, answer, matches, start)
            except Refusal as refusal:  # within a watch, a refusal is an event
                await _send(answer, "ERROR", refusal.status())
        except ConnectionError:
            pass  # the client went away
        finally:
            self.open.discard(watcher)
        return answer

    async def _stream(
        self,
        watcher: Watcher,
        answer: web.StreamResponse,
        matches: Matches,
        start: int,
    ) -> None:
        query, route, storage = watcher.request.query, watcher.route, self._storage
        loop = asyncio.get_running_loop()
        deadline = loop.time() + float(query.get("timeoutSeconds") or 1800)
        told = loop.time()
        seen = start
        if not start:  # "" and "0": everything that there is, then what changes
            with storage.lock:
                items, seen = storage.all(route.kind, route.namespace), storage.version
            for item in filter(matches, items):
                await _send(answer, "ADDED", item)
        while watcher.end != "cut":
            watcher.awake.clear()
            with storage.lock:
                changes = storage.since(seen, route.kind, route.namespace)
                seen = max(seen, storage.version)
            for kind, item in _events(changes, matches):
                await _send(answer, kind, item)
            over = loop.time() >= deadline - BOOKMARK_LEAD_S
            due = watcher.bookmark or over or loop.time() - told >= self.bookmark_every_s
            if due and query.get("allowWatchBookmarks") in {"1", "true"}:
                await _send(answer, "BOOKMARK", _bookmark(route, seen))
                told = loop.time()
            watcher.bookmark = False
            if over or watcher.end:
                return
            await _until(watcher, min(deadline - BOOKMARK_LEAD_S, told + self.bookmark_every_s))
        if watcher.request.transport is not None:
            watcher.request.transport.abort()


async def _until(watcher: Watcher, when: float) -> None:
    try:
        async with asyncio.timeout_at(when):
            await watcher.awake.wait()
    except TimeoutError:
        pass


def _events(changes: Sequence[Change], matches: Matches) -> Iterator[tuple[str, Object]]:
    """The changes as one sees them who sees only what a selector fits."""
    for change in changes:
        before = change.previous is not None and matches(change.previous)
        after = change.type != "DELETED" and matches(change.object)
        if after:
            yield ("MODIFIED" if before else "ADDED"), change.object
        elif before and change.previous is not None:
            last = change.object if change.type == "DELETED" else change.previous
            metadata = {**last["metadata"], "resourceVersion": str(change.version)}
            yield "DELETED", {**last, "metadata": metadata}


def _bookmark(route: Route, version: int) -> Object:
    return {
        "kind": route.kind.kind,
        "apiVersion": route.kind.api_version,
        "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
    }


async def _send(answer: web.StreamResponse, kind: str, item: Mapping[str, object]) -> None:
    await answer.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")

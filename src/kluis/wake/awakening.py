"""One awakening of the External Secrets Operator: stores first, then what is not fresh.

The operator tries a store that failed, and each ExternalSecret apart, after 1 s, 2 s, 4 s and so on
up to 7 minutes, and nothing tells it that a server is back. Any change to an object makes it try at
once. An ExternalSecret that is woken before its store is ready fails once more, and waits longer.
So each store is annotated, its Ready is awaited, then its ExternalSecrets are annotated, and
afterwards each must have been refreshed. What does not move is woken again, after growing pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from kluis.errors import ApiRefused, KubernetesError
from kluis.kubernetes.objects import Object, leaving, name, namespace
from kluis.kubernetes.watching import Changed, Deleted, Listed
from kluis.wake import freshness, stores
from kluis.wake.cluster import Cluster, absent
from kluis.wake.freshness import SecretKey, Standing, secret_of
from kluis.wake.progress import Progress
from kluis.wake.stores import StoreKey

SETTLE_S: Final = 0.2
"""The operator sees a store through a cache of its own, a little later than kluis does."""
FIRST_PAUSE_S: Final = 5.0
LAST_PAUSE_S: Final = 60.0
STALLED_S: Final = 75.0
"""An operator that answered, and then moved nothing for so long, will not: 5 + 10 + 20 + 40 s."""
MAX_NAMESPACES: Final = 8  # each is a watch of its own


class Awakening:
    """One run, for the stores that are ``named``, or all of a Vault or an OpenBao.

    ``since`` is when the server came back. ``progress`` may be read at any time, also after the
    run was broken off.
    """

    def __init__(self, cluster: Cluster, since: datetime, named: Sequence[StoreKey]) -> None:
        self.progress = Progress()
        self._cluster = cluster
        self._since = since
        self._named = named
        self._woken: set[SecretKey] = set()
        self._moved = asyncio.Event()
        self._answering = False

    async def run(self) -> None:
        """Until all is fresh, or nothing moves any more. The caller has the deadline.

        Raises KubernetesError.
        """
        found = await self._find_stores()
        await self._annotate_stores()
        secrets = await self._find_secrets()
        await self._first_to_end(
            self._conduct(),
            *(self._watch(path, version, self._saw_store) for path, version in found),
            *(self._watch(path, version, self._saw_secret) for path, version in secrets),
        )

    # -- what there is

    async def _find_stores(self) -> Sequence[tuple[str, str]]:
        """The collections of stores, with their versions."""
        found: list[tuple[str, str]] = []
        items: list[Object] = []
        for path in stores.collections(self._named):
            try:
                listed, version = await self._cluster.list(path)
            except KubernetesError as error:
                if self._named or path != stores.CLUSTER_STORES.path() or not absent(error):
                    raise
                continue  # an operator may be installed without this kind
            items += listed
            found.append((path, version))
        choice = stores.choose(items, self._named)
        self.progress.stores = dict(choice.ours)
        self.progress.left_alone, self.progress.missing = choice.left, choice.missing
        return found

    async def _find_secrets(self) -> Sequence[tuple[str, str]]:
        """The collections of ExternalSecrets, with their versions."""
        found: list[tuple[str, str]] = []
        progress = self.progress
        dynamic = not self._named
        if not progress.stores and not dynamic:
            progress.looked = True
            return found
        for path in freshness.collections(() if dynamic else progress.stores, MAX_NAMESPACES):
            items, version = await self._cluster.list(path)
            found.append((path, version))
            for secret in freshness.concerned(items, progress.stores, dynamic=dynamic):
                standing = secret.standing(self._since)
                if standing is Standing.ASLEEP:
                    progress.asleep[secret.key] = secret
                else:
                    progress.standings[standing] += 1
        progress.looked = True
        return found

    # -- what changes

    async def _watch(self, path: str, version: str, saw: Callable[[Object, bool], None]) -> None:
        async with aclosing(self._cluster.watch(path, version)) as changes:
            async for change in changes:
                match change:
                    case Listed(items):
                        for item in items:
                            saw(item, False)
                        self._keep(path, {(namespace(item), name(item)) for item in items})
                    case Changed(item):
                        saw(item, leaving(item))
                    case Deleted(item):
                        saw(item, True)

    def _keep(self, path: str, there: set[tuple[str, str]]) -> None:
        """After a gap: what is not among these, and would be listed there, is gone."""
        for store in list(self.progress.stores):
            if path in store.listed_at and store not in there:
                del self.progress.stores[store]
        for key in list(self.progress.asleep):
            if path in key.listed_at and key not in there:
                self._drop(key)
        self._moved.set()

    def _saw_store(self, item: Object, gone: bool) -> None:
        key, known = stores.key_of(item), self.progress.stores
        if key not in known:
            return
        if gone:
            del known[key]
            self._moved.set()
        elif known[key] != (ready := stores.is_ready(item)):
            known[key] = ready
            self._progressed(ready)

    def _saw_secret(self, item: Object, gone: bool) -> None:
        secret = secret_of(item)
        before = self.progress.asleep.get(secret.key)
        if before is None:
            return
        if gone:
            self._drop(secret.key)
        elif secret.refreshed_since(before):
            self._drop(secret.key)
            self.progress.refreshed += 1
            self._progressed(True)

    def _drop(self, key: SecretKey) -> None:
        self.progress.asleep.pop(key, None)
        self._moved.set()

    def _progressed(self, well: bool) -> None:
        self._answering = self._answering or well
        self._moved.set()

    # -- what is done about it

    async def _conduct(self) -> None:
        """Wake what can be woken, again and again, until all is fresh or nothing moves."""
        pause_s, quiet_s = FIRST_PAUSE_S, 0.0
        await self._annotate_secrets(self._ready())
        while not self.progress.done:
            if await self._moves_within(pause_s):
                pause_s, quiet_s = FIRST_PAUSE_S, 0.0
                await asyncio.sleep(SETTLE_S)
                await self._annotate_secrets(self._ready() - self._woken)
                continue
            quiet_s += pause_s
            if self._answering and quiet_s >= STALLED_S:
                return
            pause_s = min(LAST_PAUSE_S, pause_s * 2)
            await self._annotate_stores()
            await self._annotate_secrets(self._ready())

    async def _moves_within(self, pause_s: float) -> bool:
        try:
            async with asyncio.timeout(pause_s):
                await self._moved.wait()
        except TimeoutError:
            return False
        self._moved.clear()
        return True

    def _ready(self) -> set[SecretKey]:
        """Those asleep whose stores are ready; those without a store wait for all of them."""
        known = self.progress.stores
        return {
            key
            for key, secret in self.progress.asleep.items()
            if all(known[store] for store in (secret.stores & known.keys() or known))
        }

    async def _annotate_stores(self) -> None:
        """Wake those that are not ready, and at first all: one may have failed unnoticed."""
        known, first = self.progress.stores, not self.progress.looked
        waiting = [key for key, ready in known.items() if first or not ready]
        await self._all(self._wake_store(key) for key in waiting)

    async def _wake_store(self, key: StoreKey) -> None:
        try:
            await self._cluster.annotate(key.path, stores.WOKEN, _stamp())
        except ApiRefused as error:
            if not absent(error):
                raise
            self.progress.stores.pop(key, None)  # deleted meanwhile
            self._moved.set()

    async def _annotate_secrets(self, keys: Iterable[SecretKey]) -> None:
        targets: dict[freshness.Target, list[SecretKey]] = {}
        for key in keys:
            targets.setdefault(self.progress.asleep[key].target, []).append(key)
            self._woken.add(key)
        await self._all(self._wake(target, keys) for target, keys in targets.items())

    async def _wake(self, target: freshness.Target, keys: Sequence[SecretKey]) -> None:
        try:
            await self._cluster.annotate(target.path, target.annotation, _stamp())
        except ApiRefused as error:  # the others go on
            for key in keys:
                if not absent(error):
                    self.progress.refused[key] = error
                self._drop(key)

    async def _all(self, calls: Iterable[Coroutine[None, None, object]]) -> None:
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _first_to_end(self, *steps: Coroutine[None, None, None]) -> None:
        """Until one of them ends; it has the say, and the others are broken off."""
        tasks = {asyncio.create_task(step) for step in steps}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


def _stamp() -> str:
    """A value that no annotation had before."""
    return datetime.now(UTC).isoformat()

"""A hook that wakes the External Secrets Operator, and says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from kluis.errors import KluisError, WakeFailed
from kluis.kubernetes.client import Kubernetes
from kluis.wake.awakening import Awakening
from kluis.wake.base import Recovered, Report, shown
from kluis.wake.cluster import Cluster, FindAccess
from kluis.wake.freshness import Standing
from kluis.wake.login import Login
from kluis.wake.progress import Progress
from kluis.wake.stores import StoreKey


@dataclass(frozen=True, slots=True)
class ExternalSecrets:
    """Stores first, then the ExternalSecrets that are not fresh, and a look whether they are.

    Without ``stores``, all whose provider is a Vault or an OpenBao. With ``login`` nothing is
    touched before a test login succeeded.
    """

    kind: ClassVar[str] = "external-secrets"

    name: str
    access: FindAccess
    stores: tuple[StoreKey, ...] = ()
    login: Login | None = None
    timeout_s: float = 300.0

    async def run(self, recovery: Recovered) -> Report:
        """See Hook. Raises KluisError."""
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        access = await asyncio.to_thread(self.access)
        words: list[str] = []
        async with Kubernetes(access) as api:
            cluster = Cluster(api)
            if self.login is not None:
                words.append(await self.login.wait(cluster, recovery, self.timeout_s))
            awakening = Awakening(cluster, recovery.at, self.stores)
            trouble: KluisError | None = None
            try:
                async with asyncio.timeout_at(deadline):
                    await awakening.run()
            except TimeoutError:
                trouble = cluster.trouble
            return report(awakening.progress, words, trouble)


def report(progress: Progress, words: list[str], trouble: KluisError | None) -> Report:
    """What was done, and what was not. ``trouble`` is what the API was waited for at the end."""
    standings = progress.standings
    ready = [key for key, ready in progress.stores.items() if ready]
    left_out = {one: standings[one] for one in (Standing.ONCE, Standing.GENERATED)}
    words = [*words, f"{_many(len(ready), 'store')} ready of {len(progress.stores)}"]
    if progress.left_alone:
        names = shown([str(key) for key in progress.left_alone])
        words.append(f"left alone, for another operator has them: {names}")
    words.append(
        f"{_many(progress.refreshed, 'ExternalSecret')} refreshed, "
        f"{standings[Standing.FRESH]} fresh already"
    )
    words += [f"{number} left out: {why}" for why, number in left_out.items() if number]
    counts = {
        "stores": len(progress.stores),
        "stores_ready": len(ready),
        "stores_left": len(progress.left_alone),
        "refreshed": progress.refreshed,
        "fresh": standings[Standing.FRESH],
        "left_out": sum(left_out.values()),
        "failed": len(progress.asleep) + len(progress.refused),
    }
    failures = [*_failures(progress), *([trouble] if trouble is not None else [])]
    return Report(tuple(words), counts, _all_of(failures) if failures else None)


def _failures(progress: Progress) -> Iterator[KluisError]:
    if progress.missing:
        yield WakeFailed(
            f"there is no store {shown([str(key) for key in progress.missing])}",
            "the name is another, or the store was deleted",
            "kubectl get clustersecretstores; kubectl get secretstores --all-namespaces",
        )
    elif progress.looked and not (progress.stores or progress.left_alone):
        yield WakeFailed(
            "no store of a Vault or an OpenBao was found",
            "there is none, or their provider is another",
            "name the stores in the hook, or take the hook out",
        )
    if waiting := [str(key) for key, ready in progress.stores.items() if not ready]:
        yield WakeFailed(
            f"{_many(len(waiting), 'store')} did not become ready: {shown(waiting)}",
            "the operator can't log in with it, or the operator does not run",
            "kubectl describe the store, and see the operator's log",
        )
    if refused := progress.refused:
        reason = next(iter(refused.values()))
        names = shown([str(key) for key in refused])
        yield WakeFailed(
            f"{_many(len(refused), 'ExternalSecret')} could not be annotated: {names}",
            f"{reason.seen}; {reason.means}",
            reason.next_step,
        )
    if asleep := [str(key) for key in progress.asleep]:
        yield WakeFailed(
            f"{_many(len(asleep), 'ExternalSecret')} not refreshed: {shown(asleep)}",
            "the operator did not come to it, or it fails for a reason of its own",
            "kubectl describe the ExternalSecret; one that fails anyway is to be mended or removed",
        )


def _all_of(failures: list[KluisError]) -> KluisError:
    """Several failures as one: the first is the one to begin with."""
    first, *others = failures
    if not others:
        return first
    seen = "; ".join(one.seen for one in failures)
    return WakeFailed(seen, first.means, first.next_step)


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"

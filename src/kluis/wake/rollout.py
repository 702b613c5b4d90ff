"""A hook that restarts workloads, and waits until their new pods are available."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from kluis.errors import KubernetesError, NotYet, WakeFailed
from kluis.kubernetes.client import Kubernetes
from kluis.kubernetes.objects import number
from kluis.wake import workloads
from kluis.wake.base import Recovered, Report, shown
from kluis.wake.cluster import Cluster, FindAccess
from kluis.wake.workloads import Workload


@dataclass(frozen=True, slots=True)
class _Outcome:
    """``words`` is what came of a workload; without ``failure`` it is as it should be."""

    workload: Workload
    words: str
    waited: bool = True
    failure: KubernetesError | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """Restart all of the workloads, side by side. One that fails does not hold up the others."""

    kind: ClassVar[str] = "rollout"

    name: str
    access: FindAccess
    workloads: tuple[Workload, ...]
    timeout_s: float = 300.0

    async def run(self, recovery: Recovered) -> Report:  # noqa: ARG002 - any recovery is the same
        """See Hook. Raises KubernetesError."""
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        access = await asyncio.to_thread(self.access)
        async with Kubernetes(access) as api:
            cluster = Cluster(api)
            steps = [self._restart(cluster, one, deadline) for one in self.workloads]
            return _report(await asyncio.gather(*steps))

    async def _restart(self, cluster: Cluster, workload: Workload, deadline: float) -> _Outcome:
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout_at(deadline):
                item = await cluster.patch(workload.path, workloads.restart(datetime.now(UTC)))
        except TimeoutError:
            return _Outcome(workload, "was not restarted", failure=cluster.trouble or _late())
        except KubernetesError as error:
            return _Outcome(workload, "was not restarted", failure=error)
        if reason := workloads.by_hand(workload, item):
            return _Outcome(workload, f"was told to restart; {reason}", waited=False)
        generation = number(item, "metadata", "generation")
        try:
            item = await cluster.until(
                workload.path,
                lambda item: workloads.ended(workload, item, generation),
                deadline - now(),
            )
        except KubernetesError as error:
            return _Outcome(workload, "was told to restart, and is not done", failure=error)
        if not workloads.done(workload, item, generation):
            return _Outcome(workload, "was told to restart, and gave up", failure=_gave_up())
        return _Outcome(workload, "restarted")


def _report(outcomes: Sequence[_Outcome]) -> Report:
    failed = [one for one in outcomes if one.failure is not None]
    counts = {
        "restarted": sum(one.waited and one.failure is None for one in outcomes),
        "by_hand": sum(not one.waited for one in outcomes),
        "failed": len(failed),
    }
    words = tuple(f"{one.workload} {one.words}" for one in outcomes)
    return Report(words, counts, _failure(failed) if failed else None)


def _failure(failed: Sequence[_Outcome]) -> WakeFailed:
    names = shown([str(one.workload) for one in failed])
    first = failed[0].failure or _late()
    return WakeFailed(
        f"{len(failed)} not restarted: {names}", f"{first.seen}; {first.means}", first.next_step
    )


def _gave_up() -> KubernetesError:
    return NotYet(
        "the Deployment exceeded its own progress deadline",
        "its new pods do not become available",
        "look at them: kubectl describe pod, kubectl logs",
    )


def _late() -> KubernetesError:
    return NotYet(
        "the Kubernetes API did not answer in time",
        "it is overloaded, or the way to it is cut",
        "check that it is up: kubectl get --raw /readyz",
    )

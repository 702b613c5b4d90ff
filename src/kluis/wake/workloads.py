"""Deployments, StatefulSets and DaemonSets: how one is restarted, and when that is done.

As ``kubectl rollout restart`` and ``kubectl rollout status`` have it: an annotation of the pod
template, and then the counts in the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from kluis.kubernetes.objects import JSON, Object, Resource, condition, number, text, value

RESTARTED_AT: Final = "kubectl.kubernetes.io/restartedAt"
RESOURCES: Final[Mapping[str, Resource]] = {
    "deployment": Resource("apps", "v1", "deployments"),
    "statefulset": Resource("apps", "v1", "statefulsets"),
    "daemonset": Resource("apps", "v1", "daemonsets"),
}


class Workload(NamedTuple):
    """A workload by its kind (a key of RESOURCES), its namespace and its name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def path(self) -> str:
        """Where it is in the API."""
        return RESOURCES[self.kind].path(self.namespace, self.name)


def parse(said: str) -> Workload:
    """A workload as kluis.toml names it: KIND/NAMESPACE/NAME."""
    kind, namespace, name = said.split("/")
    return Workload(kind, namespace, name)


def restart(at: datetime) -> Object:
    """The patch that restarts a workload."""
    annotations: JSON = {RESTARTED_AT: at.isoformat(timespec="seconds")}
    return {"spec": {"template": {"metadata": {"annotations": annotations}}}}


def by_hand(workload: Workload, item: Object) -> str:
    """Why its pods are not restarted by themselves; empty when they are."""
    if value(item, "spec", "paused") is True:
        return "it is paused: its pods follow when a person resumes it"
    if workload.kind != "deployment" and text(item, "spec", "updateStrategy", "type") == "OnDelete":
        return "its strategy is OnDelete: its pods must be deleted by hand"
    return ""


def ended(workload: Workload, item: Object, generation: int) -> bool:
    """Whether the rollout of a generation is done, or will not be."""
    return done(workload, item, generation) or given_up(item, generation)


def given_up(item: Object, generation: int) -> bool:
    """Whether a Deployment says that it exceeded its own deadline."""
    reason = text(condition(item, "Progressing"), "reason")
    return _seen(item, generation) and reason == "ProgressDeadlineExceeded"


def done(workload: Workload, item: Object, generation: int) -> bool:
    """Whether all pods are of the new template, and available."""
    if not _seen(item, generation):
        return False
    match workload.kind:
        case "deployment":
            updated = number(item, "status", "updatedReplicas")
            return (
                updated >= _replicas(item)
                and number(item, "status", "replicas") <= updated
                and number(item, "status", "availableReplicas") >= updated
            )
        case "statefulset":
            return _stateful(item)
        case _:
            wanted = number(item, "status", "desiredNumberScheduled")
            return (
                number(item, "status", "updatedNumberScheduled") >= wanted
                and number(item, "status", "numberAvailable") >= wanted
            )


def _stateful(item: Object) -> bool:
    replicas = _replicas(item)
    if number(item, "status", "readyReplicas") < replicas:
        return False
    partition = number(item, "spec", "updateStrategy", "rollingUpdate", "partition")
    if partition > 0:  # those below the partition keep the old template on purpose
        return number(item, "status", "updatedReplicas") >= replicas - partition
    return text(item, "status", "updateRevision") == text(item, "status", "currentRevision")


def _seen(item: Object, generation: int) -> bool:
    """Whether the status is about this generation, or a later one."""
    return number(item, "status", "observedGeneration") >= max(generation, 1)


def _replicas(item: Object) -> int:
    """How many there shall be; one, where nothing is said."""
    return 1 if value(item, "spec", "replicas") is None else number(item, "spec", "replicas")

"""Workloads are restarted and waited for, as kubectl does it; on the double of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kluis.errors import NoApiAccess, WakeFailed
from kluis.kubernetes.access import find
from kluis.wake import workloads
from kluis.wake.base import Report
from kluis.wake.rollout import Rollout
from kluis.wake.workloads import Workload
from tests.support.kubernetes import Change, KubernetesDouble, Workloads
from tests.wake.hooks import recovery

DEPLOYMENT = Workload("deployment", "app", "web")
STATEFUL_SET = Workload("statefulset", "app", "db")
DAEMON_SET = Workload("daemonset", "app", "agent")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesDouble]:
    with KubernetesDouble(tmp_path, tls=False) as cluster:
        yield cluster


def make(cluster: KubernetesDouble, workload: Workload, **spec: Any) -> None:
    said = {"replicas": 2, "template": {"metadata": {"annotations": {"kept": "yes"}}}, **spec}
    metadata = {"name": workload.name, "namespace": workload.namespace}
    cluster.create(f"{workload.kind}s.apps", {"metadata": metadata, "spec": said})


def template(cluster: KubernetesDouble, workload: Workload) -> dict[str, str]:
    item = cluster.get(f"{workload.kind}s.apps", workload.name, workload.namespace)
    found: dict[str, str] = item["spec"]["template"]["metadata"]["annotations"]
    return found


def restarted(cluster: KubernetesDouble, *named: Workload, timeout_s: float = 60.0) -> Report:
    kubeconfig = cluster.kubeconfig()
    hook = Rollout("roll", lambda: find(kubeconfig), named, timeout_s)
    return asyncio.run(hook.run(recovery()))


def test_all_kinds_are_restarted_and_waited_for(cluster: KubernetesDouble) -> None:
    named = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)
    for workload in named:
        make(cluster, workload)
    Workloads(cluster)
    report = restarted(cluster, *named)
    assert report.failure is None
    assert report.counts == {"restarted": 3, "by_hand": 0, "failed": 0}
    for workload in named:
        assert set(template(cluster, workload)) == {workloads.RESTARTED_AT, "kept"}
        key = f"{workload.kind}s.apps"
        item = cluster.get(key, workload.name, workload.namespace)
        assert workloads.done(workload, item, item["metadata"]["generation"])


def test_pods_that_only_a_person_may_restart_are_said_and_not_waited_for(
    cluster: KubernetesDouble,
) -> None:
    make(cluster, STATEFUL_SET, updateStrategy={"type": "OnDelete"})
    make(cluster, DAEMON_SET, updateStrategy={"type": "OnDelete"})
    make(cluster, DEPLOYMENT, paused=True)
    report = restarted(cluster, STATEFUL_SET, DAEMON_SET, DEPLOYMENT)
    assert report.failure is None
    assert report.counts == {"restarted": 0, "by_hand": 3, "failed": 0}
    assert "deleted by hand" in report.words[0]
    assert workloads.RESTARTED_AT in template(cluster, STATEFUL_SET)


def test_one_that_is_not_there_does_not_hold_up_the_others(cluster: KubernetesDouble) -> None:
    make(cluster, DEPLOYMENT)
    Workloads(cluster)
    report = restarted(cluster, Workload("deployment", "app", "lost"), DEPLOYMENT)
    assert report.counts == {"restarted": 1, "by_hand": 0, "failed": 1}
    assert isinstance(report.failure, WakeFailed)
    assert "deployment/app/lost" in report.failure.seen
    assert "404" in report.failure.means


def test_at_the_deadline_it_names_what_is_not_done(cluster: KubernetesDouble) -> None:
    make(cluster, DEPLOYMENT)
    make(cluster, DAEMON_SET)
    Workloads(cluster).stuck.add("web")
    reports = (restarted(cluster, DEPLOYMENT, DAEMON_SET, timeout_s=s) for s in (1.0, 10.0, 60.0))
    report = next(one for one in reports if one.counts["restarted"])  # a busy machine needs longer
    assert report.counts == {"restarted": 1, "by_hand": 0, "failed": 1}
    assert isinstance(report.failure, WakeFailed)
    assert "deployment/app/web" in report.failure.seen


def test_a_deployment_that_gives_up_by_itself_is_told_at_once(cluster: KubernetesDouble) -> None:
    make(cluster, DEPLOYMENT)
    failed = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    status = {"observedGeneration": 2, "conditions": [failed]}

    def gives_up(_: Change) -> None:
        cluster.set_status("deployments.apps", "web", status, "app")

    cluster.on_change("deployments.apps", gives_up)
    report = restarted(cluster, DEPLOYMENT)
    assert isinstance(report.failure, WakeFailed)
    assert "progress deadline" in report.failure.means


def test_conflicts_and_an_api_that_is_away_are_waited_out(cluster: KubernetesDouble) -> None:
    make(cluster, DEPLOYMENT)
    Workloads(cluster)
    cluster.fault(method="PATCH", status=409, reason="Conflict", times=2)
    cluster.fault(method="PATCH", cut=True)
    assert restarted(cluster, DEPLOYMENT).counts["restarted"] == 1


def test_without_access_to_a_cluster_it_says_so(tmp_path: Path) -> None:
    hook = Rollout("roll", lambda: find(tmp_path / "none"), (DEPLOYMENT,))
    with pytest.raises(NoApiAccess):
        asyncio.run(hook.run(recovery()))


def status(generation: int = 5, **said: Any) -> dict[str, Any]:
    return {"spec": {"replicas": 3}, "status": {"observedGeneration": generation, **said}}


@pytest.mark.parametrize(
    ("workload", "item", "done"),
    [
        (DEPLOYMENT, status(updatedReplicas=3, replicas=3, availableReplicas=3), True),
        (DEPLOYMENT, status(4, updatedReplicas=3, replicas=3, availableReplicas=3), False),
        (DEPLOYMENT, status(updatedReplicas=2, replicas=3, availableReplicas=3), False),
        (DEPLOYMENT, status(updatedReplicas=3, replicas=4, availableReplicas=3), False),
        (DEPLOYMENT, status(updatedReplicas=3, replicas=3, availableReplicas=2), False),
        (DEPLOYMENT, {"spec": {"replicas": 0}, "status": {"observedGeneration": 5}}, True),
        (STATEFUL_SET, status(readyReplicas=3, updateRevision="b", currentRevision="b"), True),
        (STATEFUL_SET, status(readyReplicas=3, updateRevision="b", currentRevision="a"), False),
        (STATEFUL_SET, status(readyReplicas=2, updateRevision="b", currentRevision="b"), False),
        (
            STATEFUL_SET,
            {
                "spec": {
                    "replicas": 3,
                    "updateStrategy": {"rollingUpdate": {"partition": 2}},
                },
                "status": {"observedGeneration": 5, "readyReplicas": 3, "updatedReplicas": 1},
            },
            True,
        ),
        (
            DAEMON_SET,
            status(desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=2),
            True,
        ),
        (
            DAEMON_SET,
            status(desiredNumberScheduled=2, updatedNumberScheduled=1, numberAvailable=2),
            False,
        ),
        (
            DAEMON_SET,
            status(desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=1),
            False,
        ),
        (DEPLOYMENT, {}, False),
    ],
)
def test_when_a_rollout_is_done(workload: Workload, item: dict[str, Any], done: bool) -> None:
    assert workloads.done(workload, item, 5) is done

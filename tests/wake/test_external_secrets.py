"""The External Secrets Operator is woken in the right order, and verified; with its model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kluis.errors import ApiRefused, KubernetesError, WakeFailed
from kluis.kubernetes.access import find
from kluis.wake import awakening
from kluis.wake.base import Recovered, Report
from kluis.wake.external_secrets import ExternalSecrets
from kluis.wake.stores import parse_key
from tests.support.bao import wait_until
from tests.support.kubernetes import Change, KubernetesDouble
from tests.wake import operator
from tests.wake.hooks import recovery
from tests.wake.operator import (
    CLUSTER_STORES,
    LONG_AGO,
    PARENTS,
    SECRETS,
    STORES,
    Operator,
    make_secret,
    make_store,
    ready_status,
)

A_LONG_OUTAGE = 9  # failures in a row: the next try comes 7 minutes later


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesDouble]:
    with KubernetesDouble(tmp_path, tls=False) as cluster:
        operator.install(cluster)
        yield cluster


def recently() -> str:
    """Within the interval of an hour, and before any recovery."""
    return (datetime.now(UTC) - timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")


def outage(cluster: KubernetesDouble, **said: Any) -> Operator:
    """The operator in a long outage: every store failed."""
    found = Operator(cluster, up=False, failed_before=A_LONG_OUTAGE, **said)
    wait_until(lambda: not told(cluster, found), "every store failed")
    return found


def told(cluster: KubernetesDouble, found: Operator) -> list[str]:
    """The stores that do not say yet that they failed."""
    return [
        item["metadata"]["name"]
        for kind in (CLUSTER_STORES, STORES)
        for item in cluster.objects(kind)
        if not item["spec"].get("controller") and "status" not in item
    ]


def caught_up(cluster: KubernetesDouble) -> None:
    """Return when the operator saw all that happened up to now."""
    seen = threading.Event()
    cluster.later(0.0, seen.set)
    assert seen.wait(30)


def hook(cluster: KubernetesDouble, *stores: str, timeout_s: float = 60.0) -> ExternalSecrets:
    kubeconfig = cluster.kubeconfig()
    named = tuple(map(parse_key, stores))
    return ExternalSecrets("eso", lambda: find(kubeconfig), named, timeout_s=timeout_s)


def woken(cluster: KubernetesDouble, *stores: str, at: datetime | None = None) -> Report:
    back: Recovered = recovery(at=at or datetime.now(UTC))
    return asyncio.run(hook(cluster, *stores).run(back))


def failure(report: Report) -> WakeFailed:
    assert isinstance(report.failure, WakeFailed), report
    assert all((report.failure.seen, report.failure.means, report.failure.next_step))
    return report.failure


def tries(found: Operator, name: str) -> int:
    return found.tries[(SECRETS, "app", name)]


def patched(cluster: KubernetesDouble) -> list[str]:
    """The last part of the path of everything that was patched, in order."""
    return [asked.path.rpartition("/")[2] for asked in cluster.asked("PATCH")]


def test_after_an_outage_everything_is_fresh_and_nothing_was_tried_in_vain(
    cluster: KubernetesDouble,
) -> None:
    make_store(cluster, "vault")
    make_store(cluster, "app/bao", provider="openBao")
    make_secret(cluster, "app/failed", "vault", refreshed=LONG_AGO)
    make_secret(cluster, "app/new", "app/bao")
    make_secret(cluster, "app/stale", "vault", refreshed=recently())
    model = outage(cluster)
    caught_up(cluster)
    assert ready_status(cluster, SECRETS, "app/failed") == "False"
    assert ready_status(cluster, SECRETS, "app/stale") == "True"
    before = {name: tries(model, name) for name in ("failed", "new", "stale")}
    model.up = True
    back = datetime.now(UTC)
    report = woken(cluster, at=back)
    assert report.failure is None
    assert report.counts == {
        "stores": 2,
        "stores_ready": 2,
        "stores_left": 0,
        "refreshed": 3,
        "fresh": 0,
        "left_out": 0,
        "failed": 0,
    }
    assert sorted(operator.fresh(cluster, back)) == ["app/failed", "app/new", "app/stale"]
    # one try each, and it succeeded
    assert {name: tries(model, name) - n for name, n in before.items()} == dict.fromkeys(before, 1)
    assert sorted(patched(cluster)[:2]) == ["bao", "vault"]
    again = woken(cluster, at=back)
    assert (again.failure, again.counts["refreshed"], again.counts["fresh"]) == (None, 0, 3)


def test_the_wrong_order_only_makes_it_wait_longer(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    for n in range(5):
        make_secret(cluster, f"app/s{n}", "vault", refreshed=LONG_AGO)
    model = outage(cluster)
    caught_up(cluster)
    failures = {key: count for key, count in model.failures.items() if key[0] == SECRETS}
    model.up = True
    back = datetime.now(UTC)
    for n in range(5):
        body = {"metadata": {"annotations": {"force-sync": "early"}}}
        cluster.patch(SECRETS, f"s{n}", body, "app")
    caught_up(cluster)
    cluster.patch(CLUSTER_STORES, "vault", {"metadata": {"annotations": {"a": "b"}}})
    wait_until(lambda: ready_status(cluster, CLUSTER_STORES, "vault") == "True", "it is ready")
    caught_up(cluster)
    assert operator.fresh(cluster, back) == []
    assert all(model.failures[key] > count for key, count in failures.items())
    assert woken(cluster, at=back).counts["refreshed"] == 5


def test_what_lags_behind_its_store_is_woken_again(
    cluster: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awakening, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(awakening, "SETTLE_S", 0.0)
    make_store(cluster, "vault")
    make_secret(cluster, "app/db", "vault", refreshed=LONG_AGO)
    model = outage(cluster)
    caught_up(cluster)
    before = tries(model, "db")

    def learns_late(_: Change) -> None:
        if tries(model, "db") > before:
            model.lag_s = 0.0
            cluster.patch(CLUSTER_STORES, "vault", {"metadata": {"annotations": {"a": "b"}}})

    model.lag_s = 3600.0
    cluster.on_change(SECRETS, learns_late)
    model.up = True
    assert woken(cluster).counts["refreshed"] == 1
    assert patched(cluster).count("db") > 1


def test_children_are_woken_by_one_annotation_of_their_parent(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    cluster.create(PARENTS, {"metadata": {"name": "everywhere"}, "spec": {}})
    for namespace in ("a", "b", "c"):
        name = f"{namespace}/everywhere"
        make_secret(cluster, name, "vault", refreshed=LONG_AGO, parent="everywhere")
    model = outage(cluster)
    model.up = True
    report = woken(cluster)
    assert (report.failure, report.counts["refreshed"]) == (None, 3)
    parent = [one.path for one in cluster.asked("PATCH") if PARENTS.partition(".")[0] in one.path]
    assert len(parent) == 1
    assert not cluster.asked("PATCH", "/externalsecrets/")


def test_what_can_not_be_refreshed_is_left_out_and_said(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    generated = [{"sourceRef": {"generatorRef": {"kind": "Password", "name": "p"}}}]
    once: dict[str, Any] = {"refreshed": LONG_AGO}
    make_secret(cluster, "app/once", "vault", refreshPolicy="CreatedOnce", **once)
    make_secret(cluster, "app/never", "vault", refreshInterval="0s", **once)
    make_secret(cluster, "app/generated", "vault", refreshed=recently(), dataFrom=generated)
    make_secret(cluster, "app/db", "vault", refreshed=recently())
    model = outage(cluster)
    model.up = True
    report = woken(cluster)
    assert report.failure is None
    assert (report.counts["refreshed"], report.counts["left_out"]) == (1, 3)
    assert sum("left out" in line for line in report.words) == 2
    assert [name for name in patched(cluster) if name != "vault"] == ["db"]


def test_a_store_of_another_operator_is_left_alone_and_said(cluster: KubernetesDouble) -> None:
    make_store(cluster, "theirs", controller="other")
    make_store(cluster, "aws", provider="aws")
    make_secret(cluster, "app/db", "theirs", refreshed=LONG_AGO)
    outage(cluster)
    report = woken(cluster)
    assert (report.failure, report.counts["stores_left"]) == (None, 1)
    assert any("theirs" in line for line in report.words)
    assert patched(cluster) == []


def test_only_what_was_named_is_touched_or_even_read(cluster: KubernetesDouble) -> None:
    for namespace in ("team", "others"):
        make_store(cluster, f"{namespace}/vault")
        make_secret(cluster, f"{namespace}/db", f"{namespace}/vault", refreshed=LONG_AGO)
    model = outage(cluster)
    model.up = True
    assert woken(cluster, "team/vault").counts["refreshed"] == 1
    assert {one.path.split("/")[5] for one in cluster.requests} == {"team"}


def test_a_name_that_is_not_there_is_told_and_the_rest_is_woken(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    make_secret(cluster, "app/db", "vault", refreshed=LONG_AGO)
    model = outage(cluster)
    model.up = True
    report = woken(cluster, "vault", "lost")
    assert "lost" in failure(report).seen
    assert report.counts["refreshed"] == 1


def test_without_any_store_it_says_so(cluster: KubernetesDouble) -> None:
    assert "no store" in failure(woken(cluster)).seen


def give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short while in which nothing moves, and yet long for a model on a busy machine."""
    monkeypatch.setattr(awakening, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(awakening, "LAST_PAUSE_S", 0.2)
    monkeypatch.setattr(awakening, "STALLED_S", 1.5)


def test_a_store_that_stays_unready_does_not_hold_up_the_others(
    cluster: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_soon(monkeypatch)
    for name in ("good", "bad"):
        make_store(cluster, name)
        make_secret(cluster, f"app/{name}", name, refreshed=LONG_AGO)
    model = outage(cluster)
    model.broken.add("bad")
    model.up = True
    report = woken(cluster)
    assert (report.counts["stores_ready"], report.counts["refreshed"]) == (1, 1)
    assert report.counts["failed"] == 1
    assert "store did not become ready: bad" in failure(report).seen
    assert "app/bad" in failure(report).seen
    assert patched(cluster).count("bad") > 1  # the store; its ExternalSecret not once
    assert not cluster.asked("PATCH", "/externalsecrets/bad")


def test_what_fails_for_its_own_reasons_is_named_and_given_up(
    cluster: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_soon(monkeypatch)
    make_store(cluster, "vault")
    for n in range(15):
        make_secret(cluster, f"app/s{n:02}", "vault", refreshed=LONG_AGO)
    model = outage(cluster)
    model.broken |= {f"s{n:02}" for n in range(14)}
    model.up = True
    report = woken(cluster)
    assert (report.counts["refreshed"], report.counts["failed"]) == (1, 14)
    assert "app/s09 and 4 more" in failure(report).seen


def test_at_the_deadline_it_says_how_far_it_came(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    make_secret(cluster, "app/db", "vault", refreshed=LONG_AGO)
    outage(cluster)  # and the server never answers the operator
    back = recovery(at=datetime.now(UTC))
    reports = (asyncio.run(hook(cluster, timeout_s=s).run(back)) for s in (0.5, 5.0, 50.0))
    report = next(one for one in reports if one.counts["stores"])  # a busy machine needs longer
    assert report.counts["stores_ready"] == 0
    assert "did not become ready: vault" in failure(report).seen


def test_conflicts_and_an_api_that_is_away_are_waited_out(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    for n in range(3):
        make_secret(cluster, f"app/s{n}", "vault", refreshed=LONG_AGO)
    model = outage(cluster)
    model.up = True
    cluster.fault(method="PATCH", status=409, reason="Conflict", times=2)
    cluster.fault(method="GET", status=503, reason="ServiceUnavailable", watches=False)
    cluster.fault(method="GET", cut=True, watches=False)
    cluster.fault(method="PATCH", path="externalsecrets", status=500, times=2)
    cluster.fault(method="GET", watches=True, cut=True, times=2)
    report = woken(cluster)
    assert (report.failure, report.counts["refreshed"]) == (None, 3)


def test_what_may_not_be_patched_does_not_hold_up_the_others(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    for name in ("app/ours", "closed/theirs"):
        make_secret(cluster, name, "vault", refreshed=LONG_AGO)
    model = outage(cluster)
    model.up = True
    cluster.fault(
        method="PATCH", path="namespaces/closed/", status=403, reason="Forbidden", times=100
    )
    report = woken(cluster)
    assert (report.counts["refreshed"], report.counts["failed"]) == (1, 1)
    assert "could not be annotated: closed/theirs" in failure(report).seen


@pytest.mark.parametrize("gap", [False, True])
def test_what_is_deleted_meanwhile_is_not_waited_for(cluster: KubernetesDouble, gap: bool) -> None:
    make_store(cluster, "vault")
    make_store(cluster, "leaving")
    make_store(cluster, "app/leaving")
    make_secret(cluster, "app/kept", "vault", refreshed=LONG_AGO)
    make_secret(cluster, "app/leaving", "leaving", refreshed=LONG_AGO)
    model = outage(cluster)
    model.broken.add("leaving")
    model.up = True

    async def play() -> Report:
        running = asyncio.create_task(hook(cluster).run(recovery(at=datetime.now(UTC))))
        await asyncio.to_thread(wait_until, lambda: cluster.watching == 3, "it watches")
        away = cluster.fault(status=503, reason="Away", times=1000 if gap else 0)
        if gap:
            cluster.cut_watches()
        cluster.delete(SECRETS, "leaving", "app")
        cluster.delete(CLUSTER_STORES, "leaving")
        cluster.delete(STORES, "leaving", "app")
        if gap:
            cluster.compact()
        away.times = 0
        return await running

    report = asyncio.run(play())
    assert (report.failure, report.counts["refreshed"]) == (None, 1)


def test_what_is_gone_when_it_is_to_be_annotated_is_not_waited_for(
    cluster: KubernetesDouble,
) -> None:
    for name in ("vault", "gone-store"):
        make_store(cluster, name)
    for name in ("kept", "gone"):
        make_secret(cluster, f"app/{name}", "vault", refreshed=LONG_AGO)
    model = outage(cluster)
    model.broken |= {"gone-store", "gone"}
    model.up = True
    cluster.fault(method="PATCH", path="/gone", status=404, reason="NotFound", times=9)
    report = woken(cluster)
    assert (report.failure, report.counts["refreshed"], report.counts["failed"]) == (None, 1, 0)


def test_an_account_that_may_not_wake_a_store_is_told_at_once(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    cluster.fault(method="PATCH", status=403, reason="Forbidden", times=9)
    with pytest.raises(ApiRefused) as caught:
        woken(cluster)
    assert caught.value.status == 403


def test_an_operator_without_cluster_stores_is_woken_too(cluster: KubernetesDouble) -> None:
    make_store(cluster, "app/vault")
    make_secret(cluster, "app/db", "app/vault")
    outage(cluster).up = True
    cluster.fault(method="GET", path="/clustersecretstores", status=404, reason="NotFound")
    assert woken(cluster).counts["refreshed"] == 1


def test_an_account_that_may_not_look_is_told_at_once(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    cluster.fault(method="GET", path="externalsecrets", status=403, reason="Forbidden", times=9)
    with pytest.raises(ApiRefused) as caught:
        woken(cluster)
    assert caught.value.status == 403


def test_without_the_operators_kinds_it_says_so(tmp_path: Path) -> None:
    with KubernetesDouble(tmp_path, tls=False) as bare, pytest.raises(KubernetesError):
        woken(bare)


def test_a_thousand_are_woken_by_lists_and_watches(cluster: KubernetesDouble) -> None:
    make_store(cluster, "vault")
    for n in range(1000):
        make_secret(cluster, f"app{n % 7}/s{n:04}", "vault", refreshed=recently())
    model = outage(cluster)
    model.up = True
    report = woken(cluster)
    assert (report.failure, report.counts["refreshed"]) == (None, 1000)
    assert set(model.refreshes.values()) == {1}
    assert len(cluster.asked("PATCH", "/externalsecrets/")) == 1000
    assert len(cluster.asked("GET")) < 20

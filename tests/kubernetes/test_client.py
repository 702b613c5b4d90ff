"""The client against the double: what it reads and writes, and every way in which that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from kluis.errors import (
    ApiConflict,
    ApiGone,
    ApiRefused,
    ApiUnreachable,
    KluisError,
    KubernetesError,
    NotYet,
)
from kluis.kubernetes import api, client
from kluis.kubernetes.access import Access, Token, TokenFile
from kluis.kubernetes.client import Kubernetes
from kluis.kubernetes.objects import Object, Resource, condition, name, text, version
from tests.kubernetes.conftest import WIDGETS, access
from tests.support.bao import free_port, wait_until
from tests.support.kubernetes import KubernetesDouble

T = TypeVar("T")
KEY = WIDGETS.key
RESOURCE = Resource("example.org", "v1", "widgets")
ALL = RESOURCE.path("n")
ONE = RESOURCE.path("n", "a")


def run(
    cluster: KubernetesDouble,
    work: Callable[[Kubernetes], Awaitable[T]],
    way: Access | None = None,
    timeout_s: float = 30.0,
) -> T:
    async def within() -> T:
        async with Kubernetes(way or access(cluster), timeout_s) as connected:
            return await work(connected)

    return asyncio.run(within())


def failure(
    cluster: KubernetesDouble,
    work: Callable[[Kubernetes], Awaitable[object]],
    way: Access | None = None,
    timeout_s: float = 30.0,
) -> KluisError:
    """The error of it: with its three lines, and nobody's token in them."""
    with pytest.raises(KluisError) as caught:
        run(cluster, work, way, timeout_s)
    error = caught.value
    assert all((error.seen, error.means, error.next_step))
    assert cluster.token not in f"{error.seen}{error.means}{error.next_step}{error!r}"
    return error


def make(cluster: KubernetesDouble, *names: str) -> None:
    for one in names:
        cluster.create(KEY, {"metadata": {"name": one, "namespace": "n"}, "spec": {"size": 1}})


def reads(api: Kubernetes) -> Awaitable[object]:
    return api.get(ONE)


def lists(api: Kubernetes) -> Awaitable[object]:
    return api.list(ALL)


# -- what it does


def test_an_object_is_read_and_patched(cluster: KubernetesDouble) -> None:
    make(cluster, "a")

    async def work(api: Kubernetes) -> Object:
        before = await api.get(ONE)
        body: Object = {"metadata": {"annotations": {"x/y": "1"}}}
        after = await api.patch(ONE, body, version(before))
        assert await api.get(ONE) == after
        return after

    after = run(cluster, work)
    assert (name(after), text(after, "metadata", "annotations", "x/y")) == ("a", "1")
    (patch,) = cluster.asked("PATCH")
    assert patch.content_type == "application/merge-patch+json"
    assert patch.query == {"fieldManager": "kluis"}


def test_an_object_is_made_and_a_token_asked_for(cluster: KubernetesDouble) -> None:
    cluster.create("serviceaccounts", {"metadata": {"name": "eso", "namespace": "n"}})
    accounts = Resource("", "v1", "serviceaccounts")
    spec: Object = {"spec": {"audiences": ["bao"]}}
    made = run(cluster, lambda api: api.create(ALL, {"metadata": {"name": "a"}}))
    assert made == cluster.get(KEY, "a", "n")
    answer = run(cluster, lambda api: api.create(accounts.path("n", "eso", "token"), spec))
    assert text(answer, "status", "token")
    assert {one.content_type for one in cluster.asked("POST")} == {"application/json"}


def test_a_patch_of_another_version_is_a_conflict(cluster: KubernetesDouble) -> None:
    make(cluster, "a")
    before = cluster.get(KEY, "a", "n")
    cluster.patch(KEY, "a", {"spec": {"size": 2}}, "n")
    error = failure(cluster, lambda api: api.patch(ONE, {"spec": {"size": 3}}, version(before)))
    assert isinstance(error, ApiConflict)
    assert (error.status, error.reason) == (409, "Conflict")
    assert cluster.get(KEY, "a", "n")["spec"]["size"] == 2


def test_a_list_is_read_in_pages(
    cluster: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAGE_ITEMS", 2)
    make(cluster, *"abcde")
    items, at = run(cluster, lambda api: api.list(ALL))
    assert ([name(item) for item in items], at) == (list("abcde"), cluster.version)
    assert len(cluster.asked("GET")) == 3
    items, _ = run(cluster, lambda api: api.list(ALL, field_selector="metadata.name=d"))
    assert [name(item) for item in items] == ["d"]


def test_a_list_whose_version_expired_midway_is_begun_anew(
    cluster: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAGE_ITEMS", 2)
    make(cluster, *"abc")

    def forget() -> None:
        cluster.patch(KEY, "a", {"spec": {"size": int(cluster.version)}}, "n")
        cluster.compact()

    cluster.fault(method="GET", skip=1, action=forget)
    items, at = run(cluster, lambda api: api.list(ALL))
    assert ([name(item) for item in items], at) == (list("abc"), cluster.version)
    cluster.fault(method="GET", action=forget, times=100)
    assert isinstance(failure(cluster, lists), ApiGone), "not for ever"


def test_who_is_asked_to_wait_waits_and_asks_again(cluster: KubernetesDouble) -> None:
    make(cluster, "a")
    busy = cluster.fault(status=429, reason="TooManyRequests", retry_after="1")
    run(cluster, lambda api: api.patch(ONE, {"spec": {"size": 2}}))
    assert busy.hits == 1
    assert cluster.get(KEY, "a", "n")["spec"]["size"] == 2


# -- how it fails


@pytest.mark.parametrize("status", [302, 401, 403, 404, 422, 500, 503])
def test_a_no_tells_its_status_and_its_reason(cluster: KubernetesDouble, status: int) -> None:
    cluster.fault(status=status, reason="Because")
    error = failure(cluster, reads)
    assert type(error) is ApiRefused
    assert (error.status, error.reason) == (status, "Because")
    assert len(cluster.requests) == 1, "nothing is followed, and nothing asked twice"


def test_what_is_not_there_is_a_404_and_a_wrong_token_a_401(cluster: KubernetesDouble) -> None:
    error = failure(cluster, reads)
    assert isinstance(error, ApiRefused)
    assert (error.status, error.reason) == (404, "NotFound")
    assert cluster.authority is not None
    way = Access(cluster.address, cluster.authority.certificate, Token("wrong"))
    error = failure(cluster, reads, way)
    assert isinstance(error, ApiRefused)
    assert error.status == 401


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"[" * 100_000, b"\xff", b'{"a":'])
def test_what_is_no_object_is_refused(cluster: KubernetesDouble, body: bytes) -> None:
    cluster.fault(body=body)
    assert type(failure(cluster, reads)) is KubernetesError


def test_an_answer_is_bounded(cluster: KubernetesDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_ANSWER_BYTES", 1000)
    monkeypatch.setattr(client, "MAX_LIST_BYTES", 1000)
    cluster.fault(body=b'{"a": "' + b"x" * 1000 + b'"}')
    assert type(failure(cluster, reads)) is KubernetesError
    monkeypatch.setattr(client, "PAGE_ITEMS", 1)
    make(cluster, *"abcdef")
    assert type(failure(cluster, lists)) is KubernetesError, "all pages together"


def test_who_does_not_answer_or_is_not_there_is_unreachable(cluster: KubernetesDouble) -> None:
    cluster.fault(cut=True, times=10)  # aiohttp itself asks a second time
    assert isinstance(failure(cluster, reads), ApiUnreachable)
    cluster.reset()
    cluster.fault(hang=True)
    assert isinstance(failure(cluster, reads, timeout_s=0.2), ApiUnreachable)
    nobody = Access(f"http://127.0.0.1:{free_port()}")
    assert isinstance(failure(cluster, reads, nobody), ApiUnreachable)


def test_a_replaced_token_is_read_anew(cluster: KubernetesDouble, tmp_path: Path) -> None:
    make(cluster, "a")
    account = cluster.account(tmp_path / "account")
    way = Access(cluster.address, account / "ca.crt", TokenFile(account / "token"))

    async def work(api: Kubernetes) -> None:
        assert name(await api.get(ONE)) == "a"
        cluster.rotate_token()
        with pytest.raises(ApiRefused) as caught:
            await api.get(ONE)
        assert caught.value.status == 401
        (account / "token").write_text(cluster.token + "\n")
        assert name(await api.get(ONE)) == "a"

    run(cluster, work, way)


# -- waiting for a state


def ready(item: Object) -> bool:
    return text(condition(item, "Ready"), "status") == "True"


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def test_until_returns_when_it_holds_already_and_when_it_comes_to(
    cluster: KubernetesDouble,
) -> None:
    make(cluster, "a")
    cluster.fault(watches=True, action=lambda: become_ready(cluster))
    late = run(cluster, lambda api: api.until(ONE, ready, 30))
    assert ready(late)
    assert run(cluster, lambda api: api.until(ONE, ready, 30)) == late
    assert cluster.asked("GET", watch=True)[0].query["fieldSelector"] == "metadata.name=a"


def test_until_goes_on_over_faults_of_every_kind(cluster: KubernetesDouble) -> None:
    make(cluster, "a", "other")
    cluster.fault(watches=False, cut=True)
    cluster.fault(watches=True, status=500)
    cluster.fault(watches=True, skip=1, status=410, reason="Expired")
    cluster.fault(watches=True, skip=2, action=once_open(cluster, cluster.cut_watches))
    cluster.fault(watches=True, skip=3, action=once_open(cluster, lambda: become_ready(cluster)))
    assert ready(run(cluster, lambda api: api.until(ONE, ready, 30)))


def given_up(cluster: KubernetesDouble, enough: Callable[[KluisError], bool]) -> KluisError:
    """The error when the time is over; with more time where a busy machine needed it."""
    errors = (
        failure(cluster, lambda api, time_s=time_s: api.until(ONE, ready, time_s))  # type: ignore[misc]
        for time_s in (0.2, 2.0, 20.0)
    )
    return next(error for error in errors if enough(error))


def test_until_tells_what_it_saw_last(cluster: KubernetesDouble) -> None:
    make(cluster, "a")
    error = given_up(cluster, lambda error: isinstance(error, NotYet) and bool(error.last))
    assert isinstance(error, NotYet)
    assert error.last == cluster.get(KEY, "a", "n")
    cluster.fault(cut=True, times=1000)
    given_up(cluster, lambda error: isinstance(error, ApiUnreachable))


def test_until_ends_when_there_is_nothing_to_wait_for(cluster: KubernetesDouble) -> None:
    error = failure(cluster, lambda api: api.until(ONE, ready, 30))
    assert isinstance(error, ApiRefused)
    assert error.status == 404
    make(cluster, "a")
    cluster.fault(watches=True, action=once_open(cluster, lambda: remove(cluster)))
    error = failure(cluster, lambda api: api.until(ONE, ready, 30))
    assert isinstance(error, ApiRefused)
    assert error.status == 404
    make(cluster, "a")
    cluster.fault(watches=True, status=403, reason="Forbidden")
    error = failure(cluster, lambda api: api.until(ONE, ready, 30))
    assert isinstance(error, ApiRefused)
    assert error.status == 403


def once_open(cluster: KubernetesDouble, act: Callable[[], None]) -> Callable[[], None]:
    """For a fault of a watch: do something as soon as that watch is open."""

    def wait() -> None:
        wait_until(lambda: cluster.watching == 1, "the watch is open")
        act()

    return lambda: cluster.later(0.0, wait)


def remove(cluster: KubernetesDouble) -> None:
    cluster.delete(KEY, "a", "n")


def become_ready(cluster: KubernetesDouble) -> None:
    cluster.set_status(KEY, "a", READY, "n")

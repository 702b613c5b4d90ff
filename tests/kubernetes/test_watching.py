"""A watch loses nothing: over closed and cut connections, expired versions, and an API away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import ApiRefused, KubernetesError
from kluis.kubernetes import watching
from kluis.kubernetes.access import Access
from kluis.kubernetes.api import Api
from kluis.kubernetes.client import Kubernetes
from kluis.kubernetes.objects import Object, Resource, name, value
from kluis.kubernetes.watching import Change, Changed, Deleted, Listed, Watch
from tests.kubernetes.conftest import WIDGETS, access
from tests.support.bao import wait_until
from tests.support.kubernetes import KubernetesDouble

KEY = WIDGETS.key
ALL = Resource("example.org", "v1", "widgets").path("n")
DEADLINE_S: Final = 30.0

# One step: the test does something, and the change that then comes is compared with what is said.
Step = tuple[Callable[[], object], str]


def said(change: Change) -> str:
    """A change in a word: ``=ab`` listed, ``+a2`` changed to size 2, ``-a`` deleted."""
    match change:
        case Listed(items):
            return "=" + "".join(name(item) for item in items)
        case Changed(item):
            return f"+{name(item)}{value(item, 'spec', 'size')}"
        case Deleted(item):
            return f"-{name(item)}"


def follow(cluster: KubernetesDouble, *steps: Step, start: str | None = None) -> None:
    """Watch, and do each step when the watch is open and the one before was told."""

    async def work() -> None:
        async with (
            Kubernetes(access(cluster)) as api,
            aclosing(api.watch(ALL, start)) as changes,
            asyncio.timeout(DEADLINE_S),
        ):
            for act, wanted in steps:
                await asyncio.to_thread(act)
                assert said(await anext(changes)) == wanted

    asyncio.run(work())


def nothing() -> None:
    """The change comes by itself."""


def put(cluster: KubernetesDouble, name: str, size: int) -> Callable[[], object]:
    body: dict[str, object] = {"spec": {"size": size}}
    if size == 1:
        whole = {"metadata": {"name": name, "namespace": "n"}, **body}
        return lambda: cluster.create(KEY, whole)
    return lambda: cluster.patch(KEY, name, body, "n")


def remove(cluster: KubernetesDouble, name: str) -> Callable[[], object]:
    return lambda: cluster.delete(KEY, name, "n")


def opened(cluster: KubernetesDouble) -> None:
    wait_until(lambda: cluster.watching == 1, "the watch is open")


def ended(cluster: KubernetesDouble, end: Callable[[], None]) -> None:
    opened(cluster)
    end()
    wait_until(lambda: cluster.watching == 0, "the watch has ended")


def in_background(act: Callable[[], None]) -> Callable[[], None]:
    """For what can happen only while the watch is read."""
    return threading.Thread(target=act).start


def lists(cluster: KubernetesDouble) -> int:
    return len(cluster.asked("GET", "widgets"))


def test_what_there_is_comes_first_then_every_change(cluster: KubernetesDouble) -> None:
    put(cluster, "a", 1)()
    follow(
        cluster,
        (nothing, "=a"),
        (put(cluster, "b", 1), "+b1"),
        (put(cluster, "a", 2), "+a2"),
        (remove(cluster, "b"), "-b"),
    )
    (watch,) = cluster.asked("GET", watch=True)
    assert watch.query["allowWatchBookmarks"] == "true"
    assert watch.query["timeoutSeconds"] == "30"


def test_from_a_version_nothing_is_listed(cluster: KubernetesDouble) -> None:
    put(cluster, "a", 1)()
    start = cluster.version
    put(cluster, "a", 2)()
    follow(cluster, (nothing, "+a2"), (put(cluster, "a", 3), "+a3"), start=start)
    assert lists(cluster) == 0


@pytest.mark.parametrize("way", ["close", "cut"])
def test_a_closed_connection_is_resumed_where_it_ended(cluster: KubernetesDouble, way: str) -> None:
    put(cluster, "a", 1)()

    def away() -> None:
        ended(cluster, cluster.close_watches if way == "close" else cluster.cut_watches)
        put(cluster, "a", 3)()

    follow(cluster, (nothing, "=a"), (put(cluster, "a", 2), "+a2"), (away, "+a3"))
    assert lists(cluster) == 1


def test_a_bookmark_saves_the_list_when_the_last_change_is_long_ago(
    cluster: KubernetesDouble,
) -> None:
    put(cluster, "a", 1)()
    start = cluster.version
    cluster.create("configmaps", {"metadata": {"name": "unrelated", "namespace": "n"}})

    def meanwhile() -> None:
        cluster.compact()
        put(cluster, "a", 2)()

    def resumed() -> None:
        opened(cluster)
        cluster.bookmark()
        cluster.close_watches()

    cluster.fault(watches=True, skip=1, action=meanwhile)
    follow(cluster, (in_background(resumed), "+a2"), start=start)
    assert lists(cluster) == 0
    versions = [watch.query["resourceVersion"] for watch in cluster.asked("GET", watch=True)]
    assert versions[0] == start
    assert int(versions[1]) == int(start) + 1


def test_after_a_gap_everything_is_listed_anew(cluster: KubernetesDouble) -> None:
    put(cluster, "a", 1)()
    put(cluster, "b", 1)()

    def away() -> None:
        ended(cluster, cluster.close_watches)
        remove(cluster, "a")()
        cluster.compact()

    follow(cluster, (nothing, "=ab"), (put(cluster, "b", 2), "+b2"), (away, "=b"))


def test_a_version_expired_by_status_is_listed_anew(cluster: KubernetesDouble) -> None:
    put(cluster, "a", 1)()
    cluster.fault(watches=True, status=410, reason="Expired")
    follow(cluster, (nothing, "=a"), start="1")
    assert lists(cluster) == 1


def test_an_api_that_is_away_is_waited_for(cluster: KubernetesDouble) -> None:
    put(cluster, "a", 1)()
    cluster.fault(times=2, status=503, reason="ServiceUnavailable")
    cluster.fault(watches=True, times=2, cut=True)
    cluster.fault(watches=True, status=429, reason="TooManyRequests", retry_after="0")
    follow(cluster, (nothing, "=a"), (put(cluster, "a", 2), "+a2"))
    assert lists(cluster) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_waiting_does_not_cure_ends_the_watch(cluster: KubernetesDouble, status: int) -> None:
    cluster.fault(watches=True, status=status)
    with pytest.raises(ApiRefused) as caught:
        follow(cluster, (nothing, ""), start=cluster.version)
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"<html>\n", b"[]\n", b"{" * 2000, b'{"a": "' + b"x" * 2000])
def test_a_line_that_is_no_event_ends_the_watch(
    cluster: KubernetesDouble, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(watching, "MAX_EVENT_BYTES", 1000)
    cluster.fault(watches=True, body=body)
    with pytest.raises(KubernetesError) as caught:
        follow(cluster, (nothing, ""), start=cluster.version)
    assert type(caught.value) is KubernetesError


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "object", "metadata", "resourceVersion", "code", "message"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["type", "object"]),
        st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "NEW"]) | JSON,
    )
)
def test_any_event_is_a_change_nothing_or_a_refusal(event: Object) -> None:
    async def listing() -> tuple[list[Object], str]:
        return [], ""

    watch = Watch(Api(Access("https://api.example")), "/api/v1/pods", {}, listing, "1")
    try:
        assert watch._change(event) is None or event.get("type") in ("ADDED", "MODIFIED", "DELETED")
    except ApiRefused:
        assert event.get("type") == "ERROR"


@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_any_bytes_are_an_object_or_refused(content: bytes) -> None:
    with suppress(KubernetesError):
        assert isinstance(Api(Access("https://api.example")).parse(content), dict)

"""Reading of objects never fails, and a path leads nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import UsageError
from kluis.kubernetes import objects
from kluis.kubernetes.objects import PODS, Object, Resource

STORES = Resource("external-secrets.io", "v1", "clustersecretstores")

ITEM: Object = {
    "metadata": {"name": "a", "namespace": "n", "resourceVersion": "7", "generation": 3},
    "status": {
        "refreshTime": "2026-01-02T03:04:05Z",
        "conditions": [{"type": "Other"}, "junk", {"type": "Ready", "status": "True"}],
    },
}


def test_a_path_is_that_of_the_api() -> None:
    assert PODS.path("vault") == "/api/v1/namespaces/vault/pods"
    assert PODS.path() == "/api/v1/pods"
    store = "/apis/external-secrets.io/v1/clustersecretstores/bao"
    assert STORES.path(name="bao") == store
    assert STORES.path(name="bao", subresource="status") == f"{store}/status"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a%2fb", "../../secrets"])
def test_a_name_does_not_leave_its_place_in_the_path(name: str) -> None:
    for place in ({"namespace": name}, {"name": name}, {"subresource": name}):
        with pytest.raises(UsageError):
            PODS.path(**place)
    assert PODS.path("n", "a?b#c") == "/api/v1/namespaces/n/pods/a%3Fb%23c"


def test_what_is_there_is_read() -> None:
    assert (objects.name(ITEM), objects.namespace(ITEM), objects.version(ITEM)) == ("a", "n", "7")
    assert objects.number(ITEM, "metadata", "generation") == 3
    assert objects.text(objects.condition(ITEM, "Ready"), "status") == "True"
    assert objects.moment(ITEM, "status", "refreshTime") == datetime(
        2026, 1, 2, 3, 4, 5, tzinfo=UTC
    )
    assert not objects.leaving(ITEM)


KEYS = st.sampled_from(["metadata", "status", "conditions", "type", "name", "refreshTime"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(KEYS, JSON), st.lists(KEYS, max_size=4))
def test_reading_never_fails(item: dict[str, Any], path: list[str]) -> None:
    assert isinstance(objects.text(item, *path), str)
    assert isinstance(objects.number(item, *path), int)
    assert isinstance(objects.member(item, *path), dict)
    assert isinstance(objects.members(item, *path), list)
    assert isinstance(objects.moment(item, *path), datetime | None)
    assert isinstance(objects.condition(item, "Ready"), dict)
    assert isinstance(objects.name(item) + objects.version(item), str)

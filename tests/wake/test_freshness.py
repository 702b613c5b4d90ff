"""What of the operator's objects is fresh, what can be woken and how; decided without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.wake import freshness, stores
from kluis.wake.freshness import SecretKey, Standing, secret_of
from kluis.wake.stores import StoreKey, parse_key

BACK = datetime(2026, 5, 4, 3, 2, 1, 900_000, tzinfo=UTC)
BEFORE, AFTER = "2026-05-04T03:02:00Z", "2026-05-04T03:02:01Z"
VAULT = {"secretStoreRef": {"name": "vault", "kind": "ClusterSecretStore"}}
PASSWORD: dict[str, Any] = {
    "dataFrom": [{"sourceRef": {"generatorRef": {"kind": "Password", "name": "p"}}}]
}


def secret(
    refreshed: str = BEFORE, ready: bool = True, synced: str = "1-a", **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": "db", "namespace": "app"},
        "spec": {**VAULT, **spec},
        "status": {
            "refreshTime": refreshed,
            "syncedResourceVersion": synced,
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def owned(**said: Any) -> dict[str, Any]:
    owner = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ClusterExternalSecret",
        "name": "everywhere",
        "controller": True,
    }
    metadata = {"name": "db", "namespace": "app", "ownerReferences": [owner | said]}
    return {**secret(), "metadata": metadata}


@pytest.mark.parametrize(
    ("item", "standing"),
    [
        (secret(AFTER), Standing.FRESH),
        (secret(BEFORE), Standing.ASLEEP),
        (secret(AFTER, ready=False), Standing.ASLEEP),
        (secret("", synced=""), Standing.ASLEEP),
        (secret("not a time"), Standing.ASLEEP),
        (secret(refreshPolicy="OnChange"), Standing.ASLEEP),
        (secret(refreshPolicy="CreatedOnce"), Standing.ONCE),
        (secret(refreshPolicy="CreatedOnce", synced="", ready=False), Standing.ASLEEP),
        (secret(refreshInterval="0"), Standing.ONCE),
        (secret(refreshInterval="0h0m0s"), Standing.ONCE),
        (secret(refreshInterval="-1h"), Standing.ONCE),
        (secret(refreshInterval="0", synced="", ready=False), Standing.ASLEEP),
        (secret(refreshInterval="0", refreshPolicy="OnChange"), Standing.ASLEEP),
        (secret(refreshInterval="1h0m0s"), Standing.ASLEEP),
        (secret(**PASSWORD), Standing.GENERATED),
        (secret(AFTER, **PASSWORD), Standing.FRESH),
        (secret(ready=False, **PASSWORD), Standing.ASLEEP),
    ],
)
def test_how_an_external_secret_stands_after_a_recovery(
    item: dict[str, Any], standing: Standing
) -> None:
    assert secret_of(item).standing(BACK) is standing


def test_a_refresh_is_known_by_what_it_leaves_and_not_by_a_clock() -> None:
    before = secret_of(secret(BEFORE))
    assert not secret_of(secret(BEFORE)).refreshed_since(before)
    assert secret_of(secret(AFTER)).refreshed_since(before)
    assert secret_of(secret(BEFORE, synced="1-b")).refreshed_since(before)
    assert not secret_of(secret(AFTER, ready=False)).refreshed_since(before)


def test_stores_are_found_wherever_a_spec_may_name_them() -> None:
    own = {"name": "own"}
    other = {"name": "other", "kind": "ClusterSecretStore"}
    item = secret(
        data=[{"secretKey": "a", "sourceRef": {"storeRef": own}}, {"secretKey": "b"}],
        dataFrom=[{"sourceRef": {"storeRef": other}}, {"extract": {"key": "x"}}],
    )
    assert secret_of(item).stores == {
        StoreKey("", "vault"),
        StoreKey("app", "own"),
        StoreKey("", "other"),
    }
    assert [one.key for one in freshness.concerned([item], [StoreKey("", "vault")], dynamic=False)]
    assert not list(freshness.concerned([item], [StoreKey("", "own")], dynamic=False))


def test_what_asks_a_server_without_a_store_belongs_to_it_only_when_no_store_was_named() -> None:
    reference = {"kind": freshness.SERVERS_GENERATOR, "name": "database"}
    item = secret(dataFrom=[{"sourceRef": {"generatorRef": reference}}])
    item["spec"].pop("secretStoreRef")
    assert len(list(freshness.concerned([item], [], dynamic=True))) == 1
    assert not list(freshness.concerned([item], [], dynamic=False))


def test_what_is_being_deleted_is_let_go() -> None:
    item = secret()
    item["metadata"]["deletionTimestamp"] = BEFORE
    assert not list(freshness.concerned([item], [StoreKey("", "vault")], dynamic=True))


def test_a_child_is_woken_by_its_parent_and_all_others_by_themselves() -> None:
    path = "/apis/external-secrets.io/v1/namespaces/app/externalsecrets/db"
    assert secret_of(secret()).target == (path, "force-sync")
    parent = "/apis/external-secrets.io/v1/clusterexternalsecrets/everywhere"
    assert secret_of(owned()).target == (parent, "external-secrets.io/force-sync")
    for other in ({"controller": False}, {"kind": "Deployment"}, {"name": "../x"}, {"name": 7}):
        assert secret_of(owned(**other)).target.path == path


def test_external_secrets_are_looked_for_where_their_stores_can_be_used() -> None:
    everywhere = ("/apis/external-secrets.io/v1/externalsecrets",)
    assert freshness.collections([], 8) == everywhere
    assert freshness.collections([StoreKey("a", "v"), StoreKey("", "v")], 8) == everywhere
    assert freshness.collections([StoreKey("a", "v"), StoreKey("b", "v")], 1) == everywhere
    assert freshness.collections([StoreKey("a", "v"), StoreKey("a", "w")], 8) == (
        "/apis/external-secrets.io/v1/namespaces/a/externalsecrets",
    )


def store(name: str, provider: str, namespace: str = "", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"metadata": metadata, "spec": {"provider": {provider: {}}, **spec}}


def test_without_names_the_stores_of_a_vault_or_an_openbao_are_woken() -> None:
    items = [
        store("vault", "vault"),
        store("bao", "openBao", "team"),
        store("aws", "aws"),
        store("theirs", "vault", controller="other"),
    ]
    choice = stores.choose(items, [])
    assert choice.ours == {StoreKey("", "vault"): False, StoreKey("team", "bao"): False}
    assert choice.left == [StoreKey("", "theirs")]
    assert not choice.missing


def test_with_names_only_those_are_and_what_is_not_there_is_said() -> None:
    named = [parse_key("aws"), parse_key("team/bao"), parse_key("team/none")]
    choice = stores.choose([store("aws", "aws"), store("bao", "openBao", "team")], named)
    assert set(choice.ours) == {StoreKey("", "aws"), StoreKey("team", "bao")}
    assert choice.missing == [StoreKey("team", "none")]
    assert stores.collections(named) == (
        "/apis/external-secrets.io/v1/clustersecretstores",
        "/apis/external-secrets.io/v1/namespaces/team/secretstores",
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = ("metadata", "spec", "status", "data", "dataFrom", "sourceRef", "storeRef", "conditions")
OBJECTS = st.dictionaries(
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from((*NAMES, "name", "ownerReferences")), JSON) | JSON,
)


@settings(max_examples=50)
@given(OBJECTS)
def test_no_object_of_a_cluster_breaks_the_reading(item: dict[str, Any]) -> None:
    read = secret_of(item)
    assert isinstance(read.key, SecretKey)
    read.standing(BACK)
    stores.choose([item], [])
    list(freshness.concerned([item], [StoreKey("", "vault")], dynamic=True))

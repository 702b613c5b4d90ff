"""A test login at a real OpenBao, with its kubernetes auth method, before anybody is woken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kluis.errors import ApiRefused, KluisError, UsageError, WakeFailed, WrongServer
from kluis.kubernetes.access import find
from kluis.kubernetes.client import Kubernetes
from kluis.servers.tls import ServerTls
from kluis.wake import login
from kluis.wake.base import Recovered
from kluis.wake.cluster import Cluster
from kluis.wake.external_secrets import ExternalSecrets
from kluis.wake.login import Login
from tests.support.bao import wait_until
from tests.support.kubernetes import KubernetesDouble
from tests.support.transit import KmsServer, Room, transit_server
from tests.wake import operator
from tests.wake.hooks import recovery


@pytest.fixture(scope="module")
def server() -> Iterator[KmsServer]:
    with transit_server() as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesDouble]:
    with KubernetesDouble(tmp_path) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(login, "LAST_PAUSE_S", 0.2)


def account(cluster: KubernetesDouble, room: Room) -> str:
    """A service account whose tokens the server knows how to review; such a token."""
    metadata = {"name": room.key, "namespace": "vaults"}
    cluster.create("serviceaccounts", {"metadata": metadata})
    token = room.server.service_account_jwt(room.key)
    body = json.dumps({"kind": "TokenRequest", "status": {"token": token}}).encode()
    cluster.fault(method="POST", path=f"/{room.key}/token$", status=201, body=body, times=1000)
    return token


def recovered(server: KmsServer, **said: Any) -> Recovered:
    back = recovery(address=said.pop("address", server.tls()["address"]))
    tls = ServerTls(said.pop("ca", server.tls_files.authority.certificate))
    return replace(back, server=replace(back.server, tls=tls))


def tried(
    cluster: KubernetesDouble, wanted: Login, back: Recovered, timeout_s: float = 30.0
) -> str:
    async def play() -> str:
        async with Kubernetes(find(cluster.kubeconfig())) as api:
            return await wanted.wait(Cluster(api), back, timeout_s)

    return asyncio.run(play())


def accessors(server: KmsServer) -> int:
    found = server.must("LIST", "auth/token/accessors")["keys"]
    return len(found)


def test_it_logs_in_as_the_operator_does_and_leaves_no_token_behind(
    server: KmsServer, cluster: KubernetesDouble
) -> None:
    room = server.room(key=False)
    room.by_kubernetes()
    token = account(cluster, room)
    before = accessors(server)
    words = tried(cluster, Login(room.key, "vaults", room.key, audience="bao"), recovered(server))
    assert room.key in words
    assert token not in words
    assert accessors(server) == before
    [asked] = cluster.asked("POST")
    assert asked.path == f"/api/v1/namespaces/vaults/serviceaccounts/{room.key}/token"
    assert asked.content_type == "application/json"
    assert asked.json is not None
    assert asked.json["spec"] == {"expirationSeconds": 600, "audiences": ["bao"]}


def test_it_tries_until_the_server_lets_it_in(server: KmsServer, cluster: KubernetesDouble) -> None:
    room = server.room(key=False)
    account(cluster, room)

    async def play() -> str:
        async with Kubernetes(find(cluster.kubeconfig())) as api:
            wanted = Login(room.key, "vaults", room.key)
            waiting = asyncio.create_task(wanted.wait(Cluster(api), recovered(server), 30))
            await asyncio.to_thread(
                wait_until, lambda: len(cluster.asked("POST")) > 2, "it was refused twice"
            )
            await asyncio.to_thread(room.by_kubernetes)
            return await waiting

    assert room.key in asyncio.run(play())


def test_a_role_that_never_gets_in_is_told_without_its_token(
    server: KmsServer, cluster: KubernetesDouble
) -> None:
    room = server.room(key=False)
    token = account(cluster, room)

    def answered(timeout_s: float) -> bool:
        with pytest.raises(WakeFailed) as caught:
            tried(cluster, Login(room.key, "vaults", room.key), recovered(server), timeout_s)
        said = "\n".join((caught.value.seen, caught.value.means, caught.value.next_step))
        assert token not in said
        assert f"auth/kubernetes/role/{room.key}" in caught.value.next_step
        return "400" in said or "403" in said

    assert any(map(answered, (0.5, 5.0, 50.0)))  # longer on a busy machine


def test_before_the_login_nothing_is_touched(server: KmsServer, cluster: KubernetesDouble) -> None:
    operator.install(cluster)
    operator.make_store(cluster, "vault")
    room = server.room(key=False)
    account(cluster, room)
    kubeconfig = cluster.kubeconfig()
    wanted = Login(room.key, "vaults", room.key)
    hook = ExternalSecrets("eso", lambda: find(kubeconfig), (), wanted, 0.5)
    with pytest.raises(WakeFailed):
        asyncio.run(hook.run(recovered(server)))
    assert not cluster.asked("PATCH")
    room.by_kubernetes()
    model = operator.Operator(cluster)
    operator.make_secret(cluster, "app/db", "vault")
    report = asyncio.run(replace(hook, timeout_s=30.0).run(recovered(server)))
    assert report.failure is None, report
    assert "can log in" in report.words[0]
    assert model.up


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (WrongServer, {"ca": "stranger"}),
        (UsageError, {"address": "http://192.0.2.1:8200"}),
        (ApiRefused, {}),
    ],
)
def test_what_waiting_does_not_cure_is_told_at_once(
    kind: type[KluisError], said: dict[str, Any], server: KmsServer, cluster: KubernetesDouble
) -> None:
    room = server.room(key=False)
    room.by_kubernetes()
    if kind is not ApiRefused:  # which is that the service account is not there
        account(cluster, room)
    if "ca" in said:
        said = {"ca": server.folder / "tls" / "stranger" / "ca.crt"}
    with pytest.raises(kind):
        tried(cluster, Login(room.key, "vaults", room.key), recovered(server, **said), 60.0)

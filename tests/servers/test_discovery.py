"""Where nodes are found: every address of a name, every running pod of a selector."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kluis.errors import ApiUnreachable, KluisError, NoApiAccess, ServerUnreachable
from kluis.servers.discovery import Dns, Pods
from tests.support.kubernetes import KubernetesDouble


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def look_up(host: str, port: int, *_: object) -> list[Any]:
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_every_address_of_a_name_is_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "10.0.0.9", "fd00::1", "10.0.0.10", "10.0.0.9", "fe80::1%eth0")
    found = asyncio.run(Dns("bao.example", 8200).addresses())
    assert found == ("https://10.0.0.10:8200", "https://10.0.0.9:8200", "https://[fd00::1]:8200")


def test_localhost_is_really_looked_up() -> None:
    assert "https://127.0.0.1:8200" in asyncio.run(Dns("localhost", 8200).addresses())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "a..b", ""])
def test_a_name_that_is_not_known_is_an_error(host: str) -> None:
    with pytest.raises(ServerUnreachable):
        asyncio.run(Dns(host, 8200).addresses())


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answers.wait(30) and [])
    with pytest.raises(ServerUnreachable):
        asyncio.run(Dns("slow.example", 8200, timeout_s=0.1).addresses())
    answers.set()


# -- pods


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesDouble]:
    with KubernetesDouble(tmp_path_factory.mktemp("cluster")) as double:
        yield double


@pytest.fixture
def cluster(double: KubernetesDouble) -> KubernetesDouble:
    """Without what other tests left."""
    double.reset()
    return double


def pod(
    cluster: KubernetesDouble, name: str, address: str, phase: str = "Running", **metadata: Any
) -> None:
    labels = {"app.kubernetes.io/name": metadata.pop("app", "openbao")}
    cluster.create(
        "pods",
        {
            "metadata": {"name": name, "namespace": "vault", "labels": labels, **metadata},
            "status": {"phase": phase, **({"podIP": address} if address else {})},
        },
    )


def test_every_running_pod_of_the_selector_is_a_node(cluster: KubernetesDouble) -> None:
    pod(cluster, "bao-0", "10.1.0.4")
    pod(cluster, "bao-1", "fd00:1::5")
    pod(cluster, "bao-2", "", "Pending")
    pod(cluster, "bao-3", "10.1.0.6", "Failed")
    pod(cluster, "bao-4", "not an address")
    pod(cluster, "bao-5", "10.1.0.7", finalizers=["example.org/keep"])
    cluster.delete("pods", "bao-5", "vault")
    pod(cluster, "web-0", "10.1.0.8", app="web")
    wanted = "app.kubernetes.io/name=openbao"
    for scheme in ("https", "http"):
        way = Pods(cluster.kubeconfig(), None, "vault", wanted, 8200, scheme)
        found = asyncio.run(way.addresses())
        assert found == (f"{scheme}://10.1.0.4:8200", f"{scheme}://[fd00:1::5]:8200")
    (asked, _) = cluster.asked("GET")
    assert asked.path == "/api/v1/namespaces/vault/pods"
    assert asked.query["labelSelector"] == wanted


def test_no_pod_is_no_node(cluster: KubernetesDouble) -> None:
    way = Pods(cluster.kubeconfig(), None, "elsewhere", "app=openbao", 8200, "https")
    assert asyncio.run(way.addresses()) == ()


def test_what_stands_in_the_way_is_an_error_to_act_on(
    cluster: KubernetesDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure(kubeconfig: Path | None, context: str | None = None) -> KluisError:
        with pytest.raises(KluisError) as caught:
            asyncio.run(Pods(kubeconfig, context, "vault", "a=b", 8200, "https").addresses())
        return caught.value

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert isinstance(failure(None), NoApiAccess)
    assert isinstance(failure(tmp_path / "nowhere"), NoApiAccess)
    assert isinstance(failure(cluster.kubeconfig(), "another"), NoApiAccess)
    cluster.fault(cut=True, times=10)
    assert isinstance(failure(cluster.kubeconfig()), ApiUnreachable)

"""How the API is reached: kubeconfigs, a pod's account, TLS; and what is refused."""

from __future__ import annotations

import asyncio
import base64
import builtins
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import ApiUnreachable, NoApiAccess
from kluis.kubernetes import access, files, kubeconfig
from kluis.kubernetes.access import Access, ClientCertificate, Token, TokenFile
from kluis.kubernetes.client import Kubernetes
from kluis.kubernetes.objects import PODS
from tests.support.kubernetes import KubernetesDouble

YAML = """
apiVersion: v1
kind: Config
current-context: home
preferences: {}
clusters:
- name: home
  cluster: {server: "https://kube.example:6443", certificate-authority: pki/ca.crt}
- name: away
  cluster: {server: https://10.0.0.7/k8s/clusters/c-1, tls-server-name: kube.example}
users:
- name: admin
  user: {tokenFile: /run/token, token: 12345}
- name: plain
  user: {token: 0x10}
contexts:
- name: home
  context: {cluster: home, user: admin, namespace: vault}
- name: away
  context: {cluster: away, user: plain}
"""


def written(path: Path, text: str | bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def config(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    return json.dumps(
        {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "https://a.example", **cluster}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
    )


def refused(path: Path | None, context: str | None = None) -> NoApiAccess:
    with pytest.raises(NoApiAccess) as caught:
        access.find(path, context).context()
    assert all((caught.value.seen, caught.value.means, caught.value.next_step))
    return caught.value


def pods(way: Access) -> None:
    async def work() -> None:
        async with Kubernetes(way) as api:
            await api.list(PODS.path("vault"))

    asyncio.run(work())


# -- the kubeconfig


def test_a_context_names_a_cluster_and_a_user(tmp_path: Path) -> None:
    path = written(tmp_path / "config", YAML)
    home = access.find(path)
    assert home == access.find(path, "home")
    assert home.server == "https://kube.example:6443"
    assert home.ca == tmp_path / "pki" / "ca.crt", "beside the file"
    assert home.token == TokenFile(Path("/run/token")), "a file is newer than what stands here"
    assert home.namespace == "vault"
    away = access.find(path, "away")
    assert (away.server_name, away.namespace) == ("kube.example", "default")
    assert away.token == Token("0x10"), "a token is not a number"
    assert "0x10" not in repr(away)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "config", YAML)
    assert "gone" in refused(path, "gone").seen
    assert "nowhere" in refused(tmp_path / "nowhere").seen
    nameless = YAML.replace("current-context: home", "")
    assert "current context" in refused(written(tmp_path / "nameless", nameless)).seen


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({}, {"exec": {"command": "aws", "apiVersion": "client.authentication.k8s.io/v1"}}),
        ({}, {"auth-provider": {"name": "gcp"}}),
        ({}, {"username": "admin", "password": "hunter2"}),
        ({}, {"token": "t", "as": "somebody"}),
        ({"insecure-skip-tls-verify": True}, {"token": "t"}),
        ({"proxy-url": "http://proxy.example"}, {"token": "t"}),
    ],
)
def test_what_kluis_can_not_follow_is_refused_and_not_ignored(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    path = written(tmp_path / "config", config(cluster, user))
    error = refused(path)
    assert any(name in error.seen for name in [*cluster, *user])
    assert "hunter2" not in f"{error.seen}{error.means}{error.next_step}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- a",
        "[" * 2000,
        "\x00",
        b"\xff\xfe\xfd",
        "a: *unknown",
        config({"server": "http://kube.example"}, {"token": "t"}),
        config({"server": "ftp://kube.example"}, {"token": "t"}),
        config({"server": "https://user@kube.example"}, {"token": "t"}),
        config({"server": ["x"]}, {"token": "t"}),
        config({"server": ""}, {"token": "t"}),
        config({"certificate-authority-data": "%%"}, {"token": "t"}),
        config({"certificate-authority-data": "AAAA"}, {"token": "t"}),
        config({}, {"client-certificate-data": "AAAA"}),
        config({}, {"client-certificate-data": "AAAA", "client-key-data": "AAAA"}),
    ],
)
def test_what_is_no_usable_kubeconfig_is_refused(tmp_path: Path, text: str | bytes) -> None:
    refused(written(tmp_path / "config", text))


def test_a_kubeconfig_that_others_can_write_or_without_end_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "config", YAML)
    path.chmod(0o664)
    assert "0664" in refused(path).seen
    path.chmod(0o600)
    with path.open("ab") as file:
        file.truncate(files.MAX_FILE_BYTES + 1)
    assert str(files.MAX_FILE_BYTES) in refused(path).seen
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "regular" in refused(tmp_path / "pipe").seen


def test_without_pyyaml_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    error = refused(written(tmp_path / "config", YAML))
    assert error.next_step == "pip install 'kluis[kubernetes]'"


NAMES = ("clusters", "users", "contexts", "current-context", "name", "cluster", "user", "context")
FIELDS = ("server", "token", "tokenFile", "client-key", "certificate-authority-data", "exec")
VALUES = st.recursive(
    st.text(max_size=6) | st.sampled_from(["c", "https://a.example"]) | st.none() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES + FIELDS), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_are_a_kubeconfig_or_refused(data: bytes) -> None:
    with pytest.raises(NoApiAccess):
        kubeconfig.parse(data, Path("config"))


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), VALUES, VALUES)
def test_any_structure_is_a_kubeconfig_or_refused(
    root: dict[str, Any], cluster: object, user: object
) -> None:
    whole = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "c", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        **root,
    }
    with suppress(NoApiAccess):
        kubeconfig.parse(json.dumps(whole).encode(), Path("config"))


# -- within the cluster


def test_a_pod_has_an_address_a_token_and_an_authority(
    shared: KubernetesDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = shared.account(tmp_path / "account")
    monkeypatch.setattr(access, "ACCOUNT", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(shared.port))
    way = access.find()
    assert (way.server, way.namespace) == (shared.address, "vault")
    pods(way)
    (account / "token").write_text("two words")
    with pytest.raises(NoApiAccess):
        pods(way)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert access.find().server == f"https://[fd00::1]:{shared.port}"


def test_outside_of_a_pod_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "kubeconfig" in refused(None).next_step
    assert "away" in refused(None, "away").seen


# -- TLS


def test_only_the_named_authority_is_believed(shared: KubernetesDouble, tmp_path: Path) -> None:
    assert shared.authority is not None
    ca = shared.authority.certificate
    pods(Access(shared.address, ca, Token(shared.token)))
    pods(Access(shared.address, ca.read_bytes(), Token(shared.token)))
    named = Access(shared.address, ca, Token(shared.token), server_name="kubernetes.default.svc")
    pods(named)
    with KubernetesDouble(tmp_path / "other") as other:
        for way in (
            Access(other.address, ca, Token(shared.token)),
            Access(shared.address, None, Token(shared.token)),
            Access(shared.address, ca, Token(shared.token), server_name="other.example"),
        ):
            with pytest.raises(ApiUnreachable) as caught:
                pods(way)
            assert "certificate" in caught.value.seen
        assert other.requests == (), "not a byte of a request"


def test_a_client_certificate_will_do_and_its_key_never_touches_a_disk(
    shared: KubernetesDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared.authority is not None
    mine = shared.authority.issue("kluis")
    by_file = {"client-certificate": str(mine.certificate), "client-key": str(mine.key)}
    pods(access.find(shared.kubeconfig("files", **by_file)))
    by_data = {
        f"{name}-data": base64.b64encode(Path(path).read_bytes()).decode()
        for name, path in by_file.items()
    }
    way = access.find(shared.kubeconfig("data", **by_data))
    assert isinstance(way.certificate, ClientCertificate)
    assert "PRIVATE KEY" not in repr(way)
    opened: list[object] = []
    plain = builtins.open

    def watched(file: Any, *rest: Any, **named: Any) -> Any:
        opened.append(file)
        return plain(file, *rest, **named)

    monkeypatch.setattr(builtins, "open", watched)
    way.context()
    monkeypatch.undo()
    assert all(isinstance(file, int) for file in opened), "descriptors in memory only"
    pods(way)
    locked = shared.authority.issue("locked", password="secret")
    with pytest.raises(NoApiAccess):
        Access(
            shared.address, None, None, ClientCertificate(locked.certificate, locked.key)
        ).context()

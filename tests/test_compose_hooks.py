"""From every kind of hook in ``kluis.toml`` to the object that does what was written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kluis import compose
from kluis.anchors.sources import CredentialSource, EnvironmentSource, FileSource
from kluis.compose.hooks import hooks
from kluis.configuration import read
from kluis.errors import NoApiAccess, SettingsError
from kluis.wake.base import Hook
from kluis.wake.command import Command
from kluis.wake.external_secrets import ExternalSecrets
from kluis.wake.login import Login
from kluis.wake.rollout import Rollout
from kluis.wake.stores import StoreKey
from kluis.wake.webhook import Webhook
from kluis.wake.workloads import Workload

URL = 'kind = "webhook"\nurl = "https://hooks.example/kluis"\n'


def written(folder: Path, hook: str, more: str = "") -> Path:
    path = folder / "kluis.toml"
    path.write_text(f"{more}[wake.after]\n{hook}")
    return path


def made(folder: Path, hook: str, more: str = "") -> Hook:
    return hooks(read(written(folder, hook, more)))["after"]


def test_external_secrets(tmp_path: Path) -> None:
    least = made(tmp_path, 'kind = "external-secrets"\n')
    assert isinstance(least, ExternalSecrets)
    assert (least.kind, least.name, least.timeout_s) == ("external-secrets", "after", 300.0)
    assert (least.stores, least.login) == ((), None)
    most = made(
        tmp_path,
        'kind = "external-secrets"\nstores = ["vault", "team/vault"]\ntimeout_s = 30\n'
        'login_role = "eso"\nlogin_service_account = "eso/operator"\nlogin_mount = "k8s/home"\n'
        'login_audience = "vault"\n',
    )
    assert isinstance(most, ExternalSecrets)
    assert most.stores == (StoreKey("", "vault"), StoreKey("team", "vault"))
    assert most.login == Login("eso", "eso", "operator", "k8s/home", "vault")
    assert most.timeout_s == 30.0


def test_rollout(tmp_path: Path) -> None:
    hook = made(tmp_path, 'kind = "rollout"\nworkloads = ["deployment/app/web"]\n')
    assert isinstance(hook, Rollout)
    assert (hook.kind, hook.workloads) == ("rollout", (Workload("deployment", "app", "web"),))


@pytest.mark.parametrize("kind", ["external-secrets", "rollout"])
def test_the_cluster_is_the_one_of_the_file(kind: str, tmp_path: Path) -> None:
    more = '[kubernetes]\nkubeconfig = "k/config"\ncontext = "home"\n'
    workloads = 'workloads = ["deployment/app/web"]\n' if kind == "rollout" else ""
    hook = made(tmp_path, f'kind = "{kind}"\n{workloads}', more)
    assert isinstance(hook, ExternalSecrets | Rollout)
    with pytest.raises(NoApiAccess) as caught:  # asked only when it runs, and there is none
        hook.access()
    assert str(tmp_path / "k/config") in caught.value.seen


def test_webhook(tmp_path: Path) -> None:
    plain = made(tmp_path, URL)
    assert plain == Webhook("after", "https://hooks.example/kluis", None, None, 10.0)
    assert plain.kind == "webhook"
    with_file = made(tmp_path, URL + 'bearer = { file = "token" }\nca = "ca.crt"\ntimeout_s = 3\n')
    source = FileSource(tmp_path / "token")
    url = "https://hooks.example/kluis"
    assert with_file == Webhook("after", url, source, tmp_path / "ca.crt", 3.0)
    for said, source_of in (("env", EnvironmentSource), ("credential", CredentialSource)):
        hook = made(tmp_path, URL + f'bearer = {{ {said} = "TOKEN" }}\n')
        assert isinstance(hook, Webhook)
        assert hook.bearer == source_of("TOKEN")


def test_command(tmp_path: Path) -> None:
    on_path = made(tmp_path, 'kind = "command"\ncommand = ["systemctl", "./restart"]\n')
    assert on_path == Command("after", ("systemctl", "./restart"), 60.0)
    beside = made(tmp_path, 'kind = "command"\ncommand = ["bin/wake", "a/b"]\n')
    assert beside == Command("after", (str(tmp_path / "bin/wake"), "a/b"), 60.0)
    absolute = made(tmp_path, 'kind = "command"\ncommand = ["/bin/true"]\ntimeout_s = 5\n')
    assert absolute == Command("after", ("/bin/true",), 5.0)


@pytest.mark.parametrize(
    "hook",
    [
        'kind = "external-secrets"\nlogin_role = "eso"\n',
        'kind = "external-secrets"\nlogin_service_account = "a/b"\n',
        'kind = "external-secrets"\nlogin_role = "eso"\nlogin_service_account = "b"\n',
        'kind = "rollout"\nworkloads = []\n',
        'kind = "rollout"\nworkloads = ["pod/app/web"]\n',
        'kind = "webhook"\nurl = "http://hooks.example/"\nbearer = { env = "TOKEN" }\n',
        'kind = "webhook"\nurl = "https://user:pass@hooks.example/"\n',
        'kind = "command"\ncommand = []\n',
        'kind = "smoke-signal"\n',
    ],
)
def test_what_can_not_work_is_refused_with_its_place(hook: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(written(tmp_path, hook))
    assert "wake.after" in caught.value.seen


def test_a_token_may_go_over_loopback_in_the_clear(tmp_path: Path) -> None:
    url = 'kind = "webhook"\nurl = "http://127.0.0.1:9/x"\nbearer = { env = "TOKEN" }\n'
    assert isinstance(made(tmp_path, url), Webhook)


def test_no_secret_of_a_hook_is_left_in_the_environment_of_a_server(tmp_path: Path) -> None:
    file = read(written(tmp_path, URL + 'bearer = { env = "HIDDEN" }\n'))
    assert compose.anchor_variables(file) == ("HIDDEN",)

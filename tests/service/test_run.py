"""``kluis run`` with real stock servers: the keyring, the seal and the server in one tree."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from kluis.servers.handoff import STATIC_STANZA
from kluis.service.asking import ask
from tests.support.applied import applied
from tests.support.bao import Bao, wait_until
from tests.support.house import ANCHORS, KEYRING, House, one_error

STATIC = KEYRING.replace('kind = "transit"', 'kind = "static-seal"')
SEALS = {
    "transit": (KEYRING, 'seal "transit" {}\n'),
    "static in memory": (STATIC, STATIC_STANZA),
    "static by environment": (STATIC, 'seal "static" {}\n'),
}


def site(tmp_path: Path, seal: str) -> tuple[House, Bao, list[str], list[str]]:
    """A house, a server that is not started, the arguments of kluis run, and the paper."""
    keyring, stanza = SEALS[seal]
    house = House(tmp_path / "house", ANCHORS + keyring)
    paper = applied(house)["shares"]["family"]
    bao = Bao(tmp_path / "bao", seal=stanza)
    run = ["--key", "homelab/bletchley", "--address", bao.address, "--", *bao.argv]
    return house, bao, run, paper


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A house without a facade, in which any command can be run."""
    house = House(tmp_path_factory.mktemp("plain"), ANCHORS + KEYRING)
    applied(house)
    return house


@pytest.mark.parametrize("seal", SEALS)
def test_a_stock_server_comes_back_after_it_was_killed(seal: str, tmp_path: Path) -> None:
    house, bao, run, _ = site(tmp_path, seal)
    with house.run(*run) as service:
        service.wait_for(lambda: bao.health() == 501, "the server listens")
        root = bao.init().root_token
        bao.kv_put(root, "garden", {"gate": "oak"})
        (killed,) = children(service.pid)
        os.kill(killed, signal.SIGKILL)
        service.wait_for(lambda: children(service.pid) not in ([], [killed]), "another one runs")
        service.wait_for(lambda: bao.health() == 200, "it is back")
        assert bao.kv_get(root, "garden") == {"gate": "oak"}
        assert service.end() == 0
    assert bao.health() is None


@pytest.mark.parametrize("seal", ["transit", "static in memory"])
def test_a_server_that_starts_while_locked_waits_for_the_paper(seal: str, tmp_path: Path) -> None:
    house, bao, run, paper = site(tmp_path, seal)
    with house.run(*run) as service:
        service.wait_for(lambda: bao.health() == 501, "the server listens")
        root = bao.init().root_token
        bao.kv_put(root, "garden", {"gate": "oak"})
    house.key.unlink()
    with house.run(*run) as service:
        if seal == "transit":
            service.wait_for(lambda: bao.health() == 503, "it listens, and is sealed")
        else:
            service.wait_ready()
            assert bao.health() is None
        control = house.control_path()
        assert ask(control, "status", {})["keyrings"]["homelab"]["state"] == "locked"
        for share in paper[1:]:
            ask(control, "unlock", {"keyring": "homelab", "share": share})
        service.wait_for(lambda: bao.health() == 200, "it is active")
        assert bao.kv_get(root, "garden") == {"gate": "oak"}


def test_a_rotated_static_key_is_taken_at_the_next_start(tmp_path: Path) -> None:
    house, bao, run, _ = site(tmp_path, "static in memory")
    with house.run(*run) as service:
        service.wait_for(lambda: bao.health() == 501, "the server listens")
        root = bao.init().root_token
        bao.kv_put(root, "garden", {"gate": "oak"})
    house.json("key", "rotate", "homelab/bletchley")
    for _ in range(2):
        with house.run(*run) as service:
            service.wait_for(lambda: bao.health() == 200, "it is active")
            assert bao.kv_get(root, "garden") == {"gate": "oak"}


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -KILL $$", 137)])
def test_it_ends_with_the_exit_code_of_the_server(script: str, code: int, plain: House) -> None:
    done = plain.kluis(
        "run", "--key", "homelab/bletchley", "--restarts", "0", "--", "sh", "-c", script
    )
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err


def test_options_after_the_dashes_are_the_servers_own(plain: House) -> None:
    done = plain.kluis(
        "run", "--key", "homelab/bletchley", "--", "echo", "--output", "json", "--help"
    )
    assert (done.code, done.out) == (0, "--output json --help\n")


@pytest.mark.parametrize("command", ["no-such-program", "./kluis.toml"])
def test_a_command_that_can_not_be_run_is_one_error(command: str, plain: House) -> None:
    said = one_error(plain.kluis("run", "--key", "homelab/bletchley", "--", command))
    assert command in said[0]
    assert all(said)


def test_no_command_at_all_is_one_error(plain: House) -> None:
    assert all(one_error(plain.kluis("run", "--key", "homelab/bletchley", "--")))


@pytest.mark.parametrize("seal", ["transit", "static in memory"])
def test_the_server_does_not_see_the_variables_that_hold_the_anchors_secrets(
    seal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring, _ = SEALS[seal]
    anchors = ANCHORS.replace('file = "anchor.key"', 'env = "DISK_KEY"')
    house = House(tmp_path, anchors + keyring)
    house.environment["DISK_KEY"] = key = os.urandom(32).hex()
    monkeypatch.setenv("DISK_KEY", key)
    applied(house)
    script = "import os; print(dict(os.environ)); print(open('/proc/self/environ').read())"
    done = house.kluis(
        "run", "--key", "homelab/bletchley", "--", sys.executable, "-S", "-c", script
    )
    assert done.code == 0, done
    assert "PATH" in done.out
    assert "DISK_KEY" not in done.out
    assert key not in done.out + done.err


def test_run_and_serve_do_not_share_a_state(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    applied(house)
    with house.run("--key", "homelab/bletchley", "--", "sleep", "600") as service:
        service.wait_ready()
        service.wait_logged('"event": "opened"')
        assert house.refuses("serve")["class"] == "AlreadyRunning"
        assert service.end() == 128 + signal.SIGTERM


def test_a_change_while_it_runs_goes_through_it(tmp_path: Path) -> None:
    house = House(tmp_path / "house", ANCHORS + KEYRING)
    applied(house)
    with house.run("--key", "homelab/bletchley", "--", "sleep", "600") as service:
        service.wait_logged('"event": "opened"')
        house.edit(more='\n[keyrings.homelab.keys.colossus]\nkind = "transit"\n')
        assert house.apply()["keyrings"]["homelab"]["revision"] == 2
        assert ask(house.control_path(), "status", {})["keyrings"]["homelab"]["revision"] == 2


def test_readiness_is_told_when_the_server_is_active(tmp_path: Path) -> None:
    import socket

    house, bao, run, _ = site(tmp_path, "transit")
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        with house.run(*run, environment={"NOTIFY_SOCKET": str(path)}) as service:
            service.wait_for(lambda: bao.health() == 501, "the server listens")
            assert not any(message.startswith(b"READY=1") for message in heard(manager))
            bao.init()
            messages: list[bytes] = []

            def ready() -> bool:
                messages.extend(heard(manager))
                return any(message.startswith(b"READY=1") for message in messages)

            wait_until(ready, "readiness is told")
            assert bao.health() == 200


def heard(manager: object) -> list[bytes]:
    import socket

    assert isinstance(manager, socket.socket)
    found: list[bytes] = []
    try:
        while True:
            found.append(manager.recv(4096))
    except BlockingIOError:
        return found

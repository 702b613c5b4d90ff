"""The life of ``kluis serve``: start, reload, stop, and what a crash leaves behind."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import signal
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from kluis.service.asking import ask
from tests.support.applied import applied
from tests.support.bao import Answer
from tests.support.house import ANCHORS, KEYRING, House, Service

PLAINTEXT = base64.b64encode(b"the root key").decode()
STOPS_WITHIN_S = 20.0  # on any machine; a request is held for 50


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path / "house")
    applied(made)
    return made


def status(house: House) -> dict[str, Any]:
    """What the service says of itself."""
    return ask(house.control_path(), "status", {})


def test_it_is_open_when_its_anchors_are_and_says_so(house: House) -> None:
    with house.serve() as service:
        service.wait_logged('"event": "opened"')
        assert house.json("status")["service"] is True
        assert all(json.loads(line)["event"] for line in service.log.splitlines())


def test_it_starts_locked_and_opens_when_the_anchor_comes_back(house: House) -> None:
    away = house.folder / "away.key"
    house.key.rename(away)
    with house.serve() as service:
        assert house.json("status", code=2)["keyrings"]["homelab"]["needs"]
        away.rename(house.key)
        service.wait_logged('"event": "opened"')
        assert status(house)["keyrings"]["homelab"]["state"] == "open"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_and_soon_though_requests_are_held(
    how: signal.Signals, tmp_path: Path
) -> None:
    house = House(tmp_path / "house")
    token = applied(house)["tokens"]["bletchley"]
    with (
        house.serve() as service,
        socket.socket(socket.AF_UNIX) as idle,
        socket.socket(socket.AF_UNIX) as deaf,
    ):
        service.wait_logged('"event": "opened"')
        sealed = house.call("PUT", "homelab/encrypt/bletchley", {"plaintext": PLAINTEXT}, token)
        ask(house.control_path(), "lock", {"keyring": "homelab"})
        held = threading.Thread(target=decrypt, args=(house, sealed, token), daemon=True)
        held.start()
        metric = "kluis_held_requests 1.0"
        service.wait_for(lambda: metric in metrics(house), "the request is held")
        idle.connect(str(house.control_path()))  # somebody who says nothing
        deaf.connect(str(house.control_path()))  # and somebody who does not listen
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.send(b'{"op":"status","args":{}}\n' * 1000)
        assert service.end(how, STOPS_WITHIN_S) == 0
        assert "Traceback" not in service.log
        held.join(STOPS_WITHIN_S)
        assert not held.is_alive()
    assert not house.control_path().exists()


def decrypt(house: House, sealed: Answer, token: str) -> None:
    data = sealed.body["data"]
    assert isinstance(data, dict)
    with contextlib.suppress(OSError, ValueError):  # it goes away
        house.call("PUT", "homelab/decrypt/bletchley", {"ciphertext": data["ciphertext"]}, token)


def metrics(house: House) -> str:
    with socket.create_connection(("127.0.0.1", house.port), timeout=30) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_a_kill_leaves_a_socket_that_is_in_nobodys_way(house: House) -> None:
    with house.serve() as service:
        service.end(signal.SIGKILL)
    assert house.control_path().is_socket()
    assert house.json("status")["service"] is False
    house.json("key", "rotate", "homelab/bletchley")
    with house.serve() as service:
        service.wait_logged('"event": "opened"')
        keys = ask(house.control_path(), "key-list", {})["keys"]
        assert keys["homelab/bletchley"]["latest"] == 2


def test_a_reload_takes_changed_anchors_and_keeps_the_old_ones_on_a_mistake(house: House) -> None:
    moved = house.folder / "moved.key"
    house.key.rename(moved)
    with house.serve() as service:
        assert status(house)["keyrings"]["homelab"]["state"] == "locked"
        house.edit(('file = "anchor.key"', 'file = "moved.key"'))
        service.send(signal.SIGHUP)
        service.wait_logged('"event": "opened"')
        house.edit(("shares = 3", "shares = 0"))
        service.send(signal.SIGHUP)
        service.wait_logged('"event": "not reloaded"')
        assert "anchors.family.shares" in service.log
        assert status(house)["keyrings"]["homelab"]["state"] == "open"


def test_readiness_is_told_to_the_service_manager_once_it_answers(house: House) -> None:
    path = house.folder.parent / "notify.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX) as first,
    ):
        manager.bind(str(path))
        manager.settimeout(30)
        first.settimeout(30)
        service = Service(house, ["serve"], {"NOTIFY_SOCKET": str(path)})
        try:
            assert manager.recv(4096).startswith(b"READY=1\n")
            first.connect(str(house.control_path()))  # which is there by then
            first.sendall(b'{"op":"status","args":{}}\n')
            assert first.recv(1) == b"{"
        finally:
            service.end()
        assert manager.recv(4096) == b"STOPPING=1"


def test_what_it_writes_is_for_its_own_user_alone(house: House) -> None:
    with house.serve() as service:
        service.wait_logged('"event": "opened"')
        for path in (house.state, *house.state.rglob("*")):
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path


def test_a_state_with_a_very_long_path_has_its_socket_in_the_runtime_folder(
    tmp_path: Path,
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    house = House(tmp_path / ("a" * 60) / ("b" * 60))
    house.environment["XDG_RUNTIME_DIR"] = str(runtime)
    applied(house)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_RUNTIME_DIR", str(runtime))
        with house.serve():
            assert [path.is_socket() for path in runtime.iterdir()] == [True]
            assert house.json("status")["service"] is True
    assert list(runtime.iterdir()) == []


def test_without_a_facade_there_is_nothing_to_serve(tmp_path: Path) -> None:
    house = House(tmp_path, ANCHORS + KEYRING)
    applied(house)
    assert house.refuses("serve")["next"].startswith("add [facade]")


def test_a_restored_backup_serves_elsewhere(house: House, tmp_path: Path) -> None:
    other = House(tmp_path / "other")
    other.state.mkdir(mode=0o700)
    shutil.copy(house.document(), other.document())
    other.key.write_bytes(house.key.read_bytes())
    with other.serve() as service:
        service.wait_logged('"event": "opened"')

"""The control socket: whom it answers, and what garbage does to it."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.applied import applied
from tests.support.house import House, Service, one_error

NOBODY = 65534
HUNG_UP = {"b''", "BrokenPipeError", "ConnectionResetError"}  # as the moment falls


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    house = House(tmp_path_factory.mktemp("control") / "house")
    applied(house)
    with house.serve() as service:
        service.wait_logged('"event": "opened"')
        yield service


@pytest.fixture
def house(running: Service) -> Iterator[House]:
    """Of a service that answers, and still does after the test."""
    yield running.house
    answer = json.loads(said(running.house, b'{"op":"status","args":{}}\n'))
    assert answer["ok"]["keyrings"]["homelab"]["state"] == "open"
    assert "Traceback" not in running.log


def said(house: House, data: bytes) -> bytes:
    """What the socket answers to some bytes, up to one line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(house.control_path()))
        try:
            connection.sendall(data)
            return connection.makefile("rb").readline()
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_the_socket_is_for_its_own_user_alone(house: House) -> None:
    assert stat.S_IMODE(house.control_path().stat().st_mode) == 0o600


GARBAGE = {
    "not JSON": b"hello\n",
    "not UTF-8": b"\xff\xfe\n",
    "no object": b"[]\n",
    "nothing": b"\n",
    "no arguments": b'{"op":"status"}\n',
    "arguments that are a list": b'{"op":"lock","args":[1]}\n',
    "arguments that are a text": b'{"op":"lock","args":"homelab"}\n',
    "arguments that are a number": b'{"op":"lock","args":1}\n',
    "an unknown operation": b'{"op":"__class__","args":{}}\n',
    "an operation that is none": b'{"op":{"a":1},"args":{}}\n',
    "a keyring that is none": b'{"op":"lock","args":{"keyring":{"a":1}}}\n',
    "a key that is none": b'{"op":"key-rotate","args":{"key":7}}\n',
    "a plan for nobody": b'{"op":"plan","args":{"replace":[{"a":1}]}}\n',
    "an apply of no plan": b'{"op":"apply","args":{"digest":"00"}}\n',
    "a share that is none": b'{"op":"unlock","args":{"keyring":"homelab","share":5}}\n',
    "times that can't be": b'{"op":"client-issue","args":{"client":"bletchley",'
    b'"overlap_s":99999999999999,"expires_s":99999999999999}}\n',
    "deep nesting": b"[" * 100_000 + b"\n",
    "an endless line": b"a" * (5 * 1024 * 1024),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_answered_with_an_error_or_hung_up_on(garbage: str, house: House) -> None:
    answer = said(house, GARBAGE[garbage])
    if answer and garbage != "a share that is none":
        error = json.loads(answer)["error"]
        assert error["seen"]
        assert error["means"]
        assert error["next"]


def test_a_talker_who_never_ends_a_line_is_in_nobodys_way(house: House) -> None:
    with socket.socket(socket.AF_UNIX) as endless:
        endless.connect(str(house.control_path()))
        endless.sendall(b'{"op":"status",')
        house.text("status")  # as a person asks


def test_a_listener_who_never_reads_is_in_nobodys_way(house: House) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(house.control_path()))
        deaf.setblocking(False)
        try:
            while True:
                deaf.send(b'{"op":"status","args":{}}\n' * 1000)
        except BlockingIOError:
            pass
        house.text("status")


AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
try:
    s.connect(sys.argv[1])
    s.sendall(b'{"op":"status","args":{}}\\n')
    sys.stdout.write(repr(s.recv(10)))
except OSError as error:
    sys.stdout.write(type(error).__name__)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_the_kernel_and_by_the_service() -> None:
    """Once by the socket's mode, and once by the peer's id where the mode was opened wide."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # tmp_path is closed to others
        house = House(Path(folder) / "house")
        applied(house)
        with house.serve():
            assert ask_as_nobody(house) == "PermissionError"
            Path(folder).chmod(0o755)
            house.folder.chmod(0o755)
            house.state.chmod(0o711)
            assert ask_as_nobody(house) == "PermissionError"
            house.control_path().chmod(0o666)
            assert ask_as_nobody(house) in HUNG_UP
            house.state.chmod(0o700)


def ask_as_nobody(house: House) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", AS_NOBODY, str(house.control_path())],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


LISTENER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1]); s.listen()
os.setgid(65534); os.setuid(65534)
s.listen()
print("listening", flush=True)
c, _ = s.accept()
sys.stdout.write(repr(c.recv(100)))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's socket")
def test_no_share_is_sent_to_a_socket_that_somebody_else_put_there(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    share = applied(house)["shares"]["family"][0]
    path = house.control_path()
    thief = subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert thief.stdout is not None
    try:
        assert thief.stdout.readline() == "listening\n"
        said = one_error(house.kluis("unlock", "homelab", stdin=share + "\n"))
        assert said[0] == f"another user (id {NOBODY}) listens on {path}"
        assert thief.communicate(timeout=30)[0] == "b''"
    finally:
        thief.kill()
        thief.wait()


def test_a_folder_in_which_others_could_put_a_socket_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.edit(more='\n[service]\ncontrol = "shared/control.sock"\n')
    applied(house)
    (house.folder / "shared").mkdir()
    (house.folder / "shared").chmod(0o777)
    error = house.refuses("serve")
    assert error["class"] == "ServiceError"
    assert "others can write to" in error["seen"]


@pytest.mark.parametrize("fault", ["a folder is there", "the way is a file"])
def test_a_control_socket_that_can_not_be_made_is_one_error(fault: str, tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    name = "anchor.key/control.sock" if "file" in fault else "control"
    house.edit(more=f'\n[service]\ncontrol = "{name}"\n')
    (house.folder / "control").mkdir()
    applied(house)
    error = house.refuses("serve")
    assert error["class"] == "ServiceError"
    assert "can't be made" in error["seen"]

"""A stock server opens with what a handoff gives it, and nothing of it lies on a disk."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kluis.errors import ServerError
from kluis.secret import Secret
from kluis.servers.handoff import (
    CURRENT_FD,
    PREVIOUS_FD,
    STATIC_STANZA,
    Handoff,
    static_environment_handoff,
    static_handoff,
    transit_handoff,
)
from tests.support.bao import (
    Bao,
    bao_binary,
    clean_environment,
    free_port,
    static_seal,
    wait_until,
)

NOWHERE = {
    name: f"http://127.0.0.1:{free_port()}"
    for name in (
        *("TRANSIT_WRAPPER_ADDR", "BAO_AGENT_ADDR", "VAULT_AGENT_ADDR"),
        *("BAO_PROXY_ADDR", "VAULT_PROXY_ADDR", "BAO_HTTP_PROXY", "VAULT_HTTP_PROXY"),
        *("BAO_ADDR", "VAULT_ADDR", "HTTP_PROXY", "HTTPS_PROXY"),
    )
}
PLAIN = {"BAO_ADDR", "VAULT_ADDR", "HTTP_PROXY", "HTTPS_PROXY"}  # measured to lead nowhere
STRAYS = {
    **NOWHERE,
    "TRANSIT_WRAPPER_TOKEN": "wrong",
    "TRANSIT_WRAPPER_KEY_NAME": "wrong",
    "TRANSIT_WRAPPER_MOUNT_PATH": "wrong",
    "BAO_TOKEN": "wrong",
    "VAULT_TOKEN": "wrong",
    "BAO_NAMESPACE": "wrong",
    "VAULT_NAMESPACE": "wrong",
}


def test_a_static_server_comes_back_with_the_key_from_a_memfd(tmp_path: Path) -> None:
    with static_handoff(Secret.random(), "k1") as handoff, _bao(tmp_path, handoff) as bao:
        token = bao.init().root_token
        bao.kv_put(token, "x", {"a": "b"})
        for _ in range(3):
            bao.kill9()
            bao.start()
            bao.wait_active()
            assert bao.kv_get(token, "x") == {"a": "b"}


def test_a_static_key_is_rotated_without_touching_the_configuration(tmp_path: Path) -> None:
    old, new = Secret.random(), Secret.random()
    with static_handoff(old, "k1") as handoff, _bao(tmp_path, handoff) as bao:
        bao.init()
    with static_handoff(new, "k2", old, "k1") as handoff, _bao(tmp_path, handoff) as bao:
        bao.wait_active()
    with static_handoff(new, "k2") as handoff, _bao(tmp_path, handoff) as bao:
        bao.wait_active()


def test_another_static_key_leaves_the_server_sealed(tmp_path: Path) -> None:
    with static_handoff(Secret.random(), "k1") as handoff, _bao(tmp_path, handoff) as bao:
        bao.init()
    with static_handoff(Secret.random(), "k1") as handoff, _bao(tmp_path, handoff) as bao:
        wait_until(lambda: "failed to unseal core" in bao.log(), "it tried its key")
        bao.wait_sealed()


def test_a_static_key_is_neither_on_disk_nor_in_arguments_nor_in_the_environment(
    tmp_path: Path,
) -> None:
    current, previous = Secret.random(), Secret.random()
    with (
        static_handoff(current, "k2", previous, "k1") as handoff,
        _bao(tmp_path, handoff) as bao,
    ):
        bao.init()
        proc = Path(f"/proc/{bao.pid}")
        seen = {name: (proc / name).read_bytes() for name in ("cmdline", "environ", "mountinfo")}
        assert b"BAO_STATIC_SEAL_CURRENT_KEY_ID=k2" in seen["environ"]  # it is the right process
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert bao.log_file in files
        seen |= {str(file): file.read_bytes() for file in files}
        for key in (current.reveal(), previous.reveal()):
            for form in (key, key.hex().encode(), base64.b64encode(key)):
                assert [name for name, content in seen.items() if form in content] == []


def test_nobody_can_write_to_a_static_key() -> None:
    key = Secret.random()
    with static_handoff(key, "k1") as handoff:
        for number in handoff.inherited_fds:
            with pytest.raises(PermissionError):
                os.write(number, b"x")
            with pytest.raises(PermissionError):
                os.pwrite(number, b"x", 0)
            for size in (0, 16, 64):
                if size != os.fstat(number).st_size:
                    with pytest.raises(PermissionError):
                        os.ftruncate(number, size)
        again = os.open(f"/proc/self/fd/{CURRENT_FD}", os.O_RDWR)
        try:
            with pytest.raises(PermissionError):
                os.write(again, b"x")
            assert os.read(again, 64) == key.reveal()
        finally:
            os.close(again)


def test_a_static_key_is_closed_after_use_and_not_inheritable_by_others() -> None:
    with static_handoff(Secret.random(), "k1") as handoff:
        assert not any(os.get_inheritable(number) for number in handoff.inherited_fds)
    for number in (CURRENT_FD, PREVIOUS_FD):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_a_taken_descriptor_is_said_and_not_overwritten() -> None:
    with (
        static_handoff(Secret.random(), "k1"),
        pytest.raises(ServerError, match="100 is in use"),
        static_handoff(Secret.random(), "k2"),
    ):
        pass
    with static_handoff(Secret.random(), "k1"):
        pass


def test_a_stanza_without_files_takes_static_keys_from_the_environment(tmp_path: Path) -> None:
    old, new = Secret.random(), Secret.random()
    stanza = 'seal "static" {}\n'
    for handoff in (
        static_environment_handoff(old, "k1"),
        static_environment_handoff(new, "k2", old, "k1"),
        static_environment_handoff(new, "k2"),
    ):
        with _bao(tmp_path, handoff, stanza) as bao:
            if bao.health() == 501:
                bao.init()
            bao.wait_active()


@pytest.mark.parametrize("way", ["memfd", "environment"])
def test_a_stray_static_key_of_ours_does_not_reach_the_server(way: str) -> None:
    strays = {
        f"BAO_STATIC_SEAL_{which}_KEY{what}": "stray"
        for which in ("CURRENT", "PREVIOUS")
        for what in ("", "_ID")
    }
    if way == "environment":
        handoff = static_environment_handoff(Secret.random(), "k1")
        assert "stray" not in handoff.child_environment(strays).values()
    else:
        with static_handoff(Secret.random(), "k1") as handoff:
            assert "stray" not in handoff.child_environment(strays).values()


@pytest.fixture(scope="module")
def kms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A stock server with a Transit key ``seal`` at ``rings/home``: its address and a token."""
    directory = tmp_path_factory.mktemp("kms")
    key_file = directory / "key"
    key_file.write_bytes(os.urandom(32))
    with Bao(directory / "bao", static_seal(key_file)) as bao:
        token = bao.init().root_token
        bao.make_transit_key(token, "seal", mount="rings/home")
        yield bao.address, token


@pytest.mark.parametrize(
    "stanza",
    [
        'seal "transit" {}\n',
        'seal "transit" {\n  address = "http://127.0.0.1:1"\n  token = "no"\n'
        '  key_name = "no"\n  mount_path = "no/"\n}\n',
    ],
    ids=["empty stanza", "stanza that says otherwise"],
)
def test_a_transit_server_follows_the_handoff_whatever_else_it_was_told(
    tmp_path: Path, kms: tuple[str, str], stanza: str
) -> None:
    handoff = transit_handoff(*kms, key="seal", mount="rings/home/")
    with _bao(tmp_path, handoff, stanza, own={**clean_environment(), **STRAYS}) as bao:
        token = bao.init().root_token
        bao.kv_put(token, "x", {"a": "b"})
        bao.kill9()
        bao.start()
        bao.wait_active()
        assert bao.kv_get(token, "x") == {"a": "b"}


@pytest.mark.parametrize("name", sorted(NOWHERE.keys() - PLAIN))
def test_the_strays_would_really_lead_a_server_astray(tmp_path: Path, name: str) -> None:
    """Else the test above proves nothing: with one of them left in, the server calls elsewhere."""
    handoff = transit_handoff(f"http://127.0.0.1:{free_port()}", "token", "seal", "rings/home/")
    with _refusing_peer() as (address, asked):
        bao = Bao(tmp_path, 'seal "transit" {}\n')
        bao.environment = {**bao.environment, **handoff.environment, name: address}
        bao.start()
        try:
            assert bao.wait_exit() == 1
        finally:
            bao.kill9()
    assert asked


def test_a_handoff_does_not_print_what_it_hands_over() -> None:
    handoff = transit_handoff("http://127.0.0.1:1", "s3cret", "key", "mount/")
    assert "s3cret" not in repr(handoff)
    assert "s3cret" not in repr(handoff.without("X"))


def test_variables_that_the_server_may_not_see_are_taken_out() -> None:
    handoff = Handoff({"A": "1"}).without("ANCHOR_KEY")
    assert handoff.child_environment({"ANCHOR_KEY": "x", "PATH": "/bin"}) == {
        "A": "1",
        "PATH": "/bin",
    }


@contextmanager
def _refusing_peer() -> Iterator[tuple[str, list[str]]]:
    """An HTTP peer, or proxy, that refuses all: its address, and what it was asked."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def _bao(
    directory: Path,
    handoff: Handoff,
    stanza: str = STATIC_STANZA,
    own: Mapping[str, str] | None = None,
) -> Bao:
    """A server with this handoff, as ``kluis run`` in the environment ``own`` would start it."""
    bao = Bao(directory, stanza, inherited_fds=handoff.inherited_fds)
    bao.environment = handoff.child_environment(clean_environment() if own is None else own)
    assert bao.argv[0] == bao_binary()
    return bao

"""``kluis sidecar`` beside a stock server: the key is on its tmpfs while it is needed, and gone."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kluis.cli.sidecar import _refuse_elsewhere
from kluis.errors import UsageError, WriteFailed
from kluis.secret import Secret
from kluis.service.asking import ask
from kluis.service.key_files import KeyFiles, Owner, owner
from kluis.service.sidecar import Seen, wants_key
from kluis.service.static_seal import SealKey
from tests.support.applied import applied
from tests.support.bao import Bao, wait_until
from tests.support.house import House, Service
from tests.support.swtpm import Swtpm

KEYRING = """
[keyrings.node]
store = { kind = "directory", path = "state" }
opens = "node-tpm or family"

[keyrings.node.keys.unseal]
kind = "static-seal"

[anchors.node-tpm]
kind = "tpm2"
device = "DEVICE"

[anchors.family]
kind = "people"
threshold = 2
shares = 3
"""
V1, V2 = SealKey(Secret(bytes(32)), "node-unseal-v1"), SealKey(Secret(b"2" * 32), "node-unseal-v2")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


# -- what decides


@pytest.mark.parametrize(
    ("seen", "placed", "wanted"),
    [
        (Seen.AWAY, False, True),
        (Seen.AWAY, True, True),
        (Seen.SEALED, False, True),
        (Seen.SEALED, True, True),
        (Seen.UNSEALED, False, False),
        (Seen.UNSEALED, True, False),
        (Seen.SILENT, False, False),
        (Seen.SILENT, True, True),
    ],
)
def test_the_key_is_there_while_the_server_has_not_read_it(
    seen: Seen, placed: bool, wanted: bool
) -> None:
    assert wants_key(seen, placed=placed) is wanted


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100", Owner(100)), ("100:1000", Owner(100, 1000)), (":1000", Owner(-1, 1000))],
)
def test_an_owner_is_a_user_a_group_or_both(text: str, expected: Owner) -> None:
    assert owner(text) == expected
    assert expected.mode == (0o600 if expected.group == -1 else 0o640)


@pytest.mark.parametrize("text", ["", ":", "openbao", "1:2:3", "-1", "1 ", "9" * 10])
def test_another_owner_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        owner(text)


# -- the files


def test_the_files_are_narrow_and_name_each_other(memory: Path) -> None:
    files = KeyFiles(memory / "seal.key")
    files.place((V2, V1))
    files.set_ready(True)
    assert sorted(p.name for p in memory.iterdir()) == [
        *("ready", "seal.hcl", "seal.key", "seal.previous.key")
    ]
    assert {p.stat().st_mode & 0o777 for p in memory.iterdir()} == {0o600}
    assert files.stanza.read_text().split() == [
        *("seal", '"static"', "{"),
        *("current_key", "=", f'"file://{memory}/seal.key"'),
        *("current_key_id", "=", '"node-unseal-v2"'),
        *("previous_key", "=", f'"file://{memory}/seal.previous.key"'),
        *("previous_key_id", "=", '"node-unseal-v1"'),
        "}",
    ]
    files.place((V2,))
    assert not files.previous.exists()
    assert "previous" not in files.stanza.read_text()
    files.withdraw()
    files.withdraw()
    assert [p.name for p in memory.iterdir()] == ["ready"]


def test_another_user_or_group_may_read_them(memory: Path) -> None:
    if os.geteuid() != 0:
        assert os.getgid() in os.getgroups()
    files = KeyFiles(memory / "seal.key", Owner(group=os.getgid()))
    files.place((V1,))
    assert files.key.stat().st_mode & 0o777 == 0o640
    if os.geteuid() == 0:
        KeyFiles(memory / "seal.key", Owner(65534)).place((V1,))
        status = files.key.stat()
        assert (status.st_uid, status.st_mode & 0o777) == (65534, 0o600)


def test_a_disk_is_refused_unless_allowed(tmp_path: Path, memory: Path) -> None:
    with pytest.raises(UsageError, match="tmpfs"):
        KeyFiles(tmp_path / "seal.key")
    KeyFiles(tmp_path / "seal.key", allow_disk=True).place((V1,))
    with pytest.raises(WriteFailed):
        KeyFiles(memory / "nowhere" / "seal.key")
    for name in ("ready", "seal.hcl"):
        with pytest.raises(UsageError):
            KeyFiles(memory / name)


def test_what_a_crash_left_is_removed_and_nothing_else(memory: Path) -> None:
    files = KeyFiles(memory / "seal.key")
    files.place((V2, V1))
    files.set_ready(True)
    (memory / "seal.key.new").write_bytes(b"half")
    files.remove_leftovers()
    assert not list(memory.iterdir())
    (memory / "seal.key").mkdir()
    (memory / "ready").touch()
    with pytest.raises(UsageError):
        files.remove_leftovers()
    assert (memory / "ready").exists()


def test_a_key_that_can_not_be_placed_whole_is_not_placed_at_all(memory: Path) -> None:
    files = KeyFiles(memory / "seal.key")
    (memory / "seal.hcl").mkdir()
    with pytest.raises(WriteFailed):
        files.place((V1,))
    assert [p.name for p in memory.iterdir()] == ["seal.hcl"]


# -- the whole, with a TPM and a server


class BaoBeside(Bao):
    """A server that takes its seal from a stanza on the tmpfs; its first key, and the paper."""

    stanza: Path
    given: bytes
    shares: list[str]

    @property
    def argv(self) -> list[str]:
        return [*super().argv, f"-config={self.stanza}"]


@contextmanager
def sidecar(house: House, bao: Bao, memory: Path, *more: str, **env: str) -> Iterator[Service]:
    """A running sidecar; ended with SIGTERM, unless the test ended it."""
    to = ["--to", str(memory / "seal.key"), "--address", bao.address]
    service = Service(house, ["sidecar", "--key", "node/unseal", *to, *more], env)
    try:
        yield service
    finally:
        service.end()


def names(memory: Path) -> set[str]:
    return {path.name for path in memory.iterdir()}


PLACED = {"ready", "seal.hcl", "seal.key"}
WITHDRAWN = {"ready"}


def site(tmp_path: Path, tpm: Swtpm, memory: Path) -> tuple[House, BaoBeside]:
    """What an init container leaves: a keyring with the key of a Secret; and a server."""
    house = House(tmp_path / "house", KEYRING.replace("DEVICE", tpm.device))
    (house.folder / "secret").write_bytes(os.urandom(32))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as paper:
        asked = ["--key", "node/unseal", "--from", "secret", "--paper-to", f"{paper}/paper"]
        assert house.json("bootstrap", *asked)["secret_may_be_deleted"] is True
        shares = re.findall(r"^  \d\. (.+)$", Path(paper, "paper").read_text(), re.MULTILINE)
    bao = BaoBeside(tmp_path / "bao")
    bao.shares = shares
    bao.given = (house.folder / "secret").read_bytes()
    (house.folder / "secret").unlink()
    bao.stanza, bao.seal = memory / "seal.hcl", "static, beside it"
    return house, bao


def test_the_key_comes_and_goes_with_the_needs_of_the_server(tmp_path: Path, memory: Path) -> None:
    with Swtpm(tmp_path) as tpm:
        house, bao = site(tmp_path, tpm, memory)
        try:
            with sidecar(house, bao, memory) as service:
                life(service, house, bao, memory)
                assert service.end() == 0
            assert not names(memory)
            with sidecar(house, bao, memory) as again:
                again.wait_logged(f"the server at {bao.address} is unsealed already")
                again.wait_for(lambda: names(memory) == WITHDRAWN, "it is ready without a key")
            assert again.log.count("no key placed") == 1
            assert "no key placed" not in service.log
            assert "Traceback" not in service.log
            no_secret_in(house, service.log, bao.given)
        finally:
            bao.kill9()


def life(service: Service, house: House, bao: Bao, memory: Path) -> None:
    """From the first start of the server to its last."""
    service.wait_for(lambda: names(memory) == PLACED, "the key is there")
    bao.start()
    bao.wait_listening()
    root = bao.init().root_token
    bao.kv_put(root, "garden", {"gate": "oak"})
    service.wait_for(lambda: names(memory) == WITHDRAWN, "the key is withdrawn")
    bao.kill9()
    service.wait_for(lambda: names(memory) == PLACED, "the key is there again")
    bao.start()
    bao.wait_active()
    service.wait_for(lambda: names(memory) == WITHDRAWN, "the key is withdrawn again")

    ask(house.control_path(), "key-rotate", {"key": "node/unseal", "alone": True})
    for _ in range(2):  # the first start wraps with the new version, the second proves it
        bao.kill9()
        service.wait_for(lambda: "seal.hcl" in names(memory), "both versions are there")
        assert names(memory) == PLACED | {"seal.previous.key"}
        assert "node-unseal-v2" in (memory / "seal.hcl").read_text()
        bao.start()
        bao.wait_active()
        service.wait_for(lambda: names(memory) == WITHDRAWN, "they are withdrawn")
    assert bao.kv_get(root, "garden") == {"gate": "oak"}
    bao.kill9()
    service.wait_for(lambda: "seal.hcl" in names(memory), "both versions are there")
    ask(house.control_path(), "lock", {"keyring": "node"})
    service.wait_for(lambda: not names(memory), "a locked keyring gives no key, and is not ready")
    ask(house.control_path(), "unlock", {"keyring": "node"})
    service.wait_for(lambda: "seal.hcl" in names(memory), "it is open again")
    bao.start()
    bao.wait_active()
    service.wait_for(lambda: names(memory) == WITHDRAWN, "they are withdrawn")


def no_secret_in(house: House, log: str, key: bytes) -> None:
    files = (path.read_bytes() for path in house.folder.rglob("*") if path.is_file())
    everywhere = log.encode() + b"".join(files)
    assert b'"event": "key placed"' in everywhere
    for form in (key, key.hex().encode(), base64.b64encode(key)):
        assert form not in everywhere


def test_after_a_crash_and_with_another_tpm_people_open_it_and_it_heals(
    tmp_path: Path, memory: Path
) -> None:
    notify = tmp_path / "notify.sock"
    with (
        Swtpm(tmp_path) as tpm,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(str(notify))
        manager.settimeout(30)
        house, bao = site(tmp_path, tpm, memory)
        with sidecar(house, bao, memory) as service:
            service.wait_for(lambda: names(memory) == PLACED, "the key is there")
            service.end(signal.SIGKILL)
        assert names(memory) == PLACED
        tpm.clear()
        with sidecar(house, bao, memory, NOTIFY_SOCKET=str(notify)) as service:
            service.wait_logged('"event": "waiting"')
            wait_until(lambda: not names(memory), "the leftover is removed")
            for share in bao.shares[:2]:
                ask(house.control_path(), "unlock", {"keyring": "node", "share": share})
            service.wait_for(lambda: names(memory) == PLACED, "people opened it")
            assert manager.recv(4096).startswith(b"READY=1\nSTATUS=node is open")
            house.text("heal")
        assert house.json("bootstrap", "--key", "node/unseal")["proven_by"] == ["node-tpm"]


def test_it_is_told_what_to_do_or_says_what_is_missing(tmp_path: Path, memory: Path) -> None:
    house = House(tmp_path)
    asked = ["sidecar", "--key", "homelab/bletchley", "--to", str(memory / "seal.key")]
    house.state.mkdir(mode=0o700)
    assert house.refuses(*asked)["class"] == "NotFound"
    applied(house)
    assert house.refuses(*asked)["class"] == "UnknownKey"
    assert house.refuses(*asked[:3])["class"] == "UsageError"
    refusal = house.refuses(*asked, "--address", "https://bao-0.example:8200")
    assert (refusal["class"], "loopback" in refusal["seen"]) == ("UsageError", True)
    house.edit(('listen = "127.0.0.1', 'listen = "0.0.0.0'), ('tls = "off"', TLS))
    assert house.refuses("sidecar")["class"] == "SettingsError"


@pytest.mark.parametrize("elsewhere", ["http://192.0.2.1:8200", "bao:8200", "http://["])
def test_only_a_server_beside_it_is_looked_at(elsewhere: str) -> None:
    with pytest.raises(UsageError, match="loopback"):
        _refuse_elsewhere(elsewhere)


TLS = 'tls = { certificate = "a", key = "b" }'


def test_without_a_key_it_serves_the_facade_on_loopback(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    token = applied(house)["tokens"]["bletchley"]
    service = Service(house, ["sidecar"], {})
    try:
        service.wait_ready()
        service.wait_logged('"event": "opened"')
        path = "homelab/encrypt/bletchley"
        assert house.call("PUT", path, {"plaintext": "YQ=="}, token).status == 200
    finally:
        assert service.end() == 0

"""Keys go over to kluis from a real OpenBao, and back; the servers they seal notice nothing."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kluis.errors import UsageError
from kluis.keyring import exchange
from tests.support.bao import Bao, bao_binary, static_seal, transit_seal
from tests.support.house import KLUIS, House


def kms(folder: Path) -> Bao:
    """A stock server that will be the KMS of another."""
    folder.mkdir(parents=True)
    (folder / "seal.key").write_bytes(os.urandom(32))
    return Bao(folder / "bao", static_seal(folder / "seal.key"))


def made_key(bao: Bao, token: str, **more: object) -> None:
    bao.must("POST", "sys/mounts/transit", {"type": "transit"}, token)
    bao.must("POST", "transit/keys/autounseal", {"exportable": True, **more}, token)


def configured(bao: Bao, token: str, **more: object) -> None:
    bao.must("POST", "transit/keys/autounseal/config", dict(more), token)


def exported(bao: Bao, token: str, path: str = "export/encryption-key") -> str:
    """As ``bao read -format=json`` prints it."""
    return json.dumps(bao.must("GET", f"transit/{path}/autounseal", token=token))


def encrypted(bao: Bao, token: str, text: str) -> str:
    body = {"plaintext": base64.b64encode(text.encode()).decode()}
    data = bao.must("PUT", "transit/encrypt/autounseal", body, token)["data"]
    assert isinstance(data, dict)
    return str(data["ciphertext"])


def decrypted(bao: Bao, token: str, key: str, ciphertext: str) -> str:
    data = bao.must("PUT", f"transit/decrypt/{key}", {"ciphertext": ciphertext}, token)["data"]
    assert isinstance(data, dict)
    return base64.b64decode(data["plaintext"]).decode()


def seal_of(house: House, token: str) -> str:
    return transit_seal(f"http://127.0.0.1:{house.port}", token, "bletchley", "homelab/")


def restart_with(bao: Bao, seal: str) -> None:
    bao.kill9()
    bao.seal = seal
    bao.write_config()
    bao.start()
    bao.wait_active()


def test_a_server_moves_from_a_real_openbao_to_kluis_and_back_without_a_new_seal(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house")
    token = house.apply()["tokens"]["bletchley"]
    with kms(tmp_path / "kms") as old:
        old_root = old.init().root_token
        made_key(old, old_root)
        seal = transit_seal(old.address, old_root, "autounseal")
        server = Bao(tmp_path / "server", seal)
        with server, house.serve_open():
            root = server.init().root_token
            server.kv_put(root, "motto", {"from": "another KMS"})
            old.must("PUT", "transit/keys/autounseal/rotate", {}, old_root)

            export = exported(old, old_root)
            text = house.text("key", "import", "homelab/bletchley", "--replace", stdin=export)
            assert "homelab/bletchley is now the key autounseal (versions 1 to 2)" in text
            old.kill9()
            restart_with(server, seal_of(house, token))
            assert server.kv_get(root, "motto") == {"from": "another KMS"}

            # it has wrapped its keys with version 2 meanwhile; with 3 it does so by kluis alone
            assert house.json("key", "rotate", "homelab/bletchley")["latest"] == 3
            restart_with(server, seal_of(house, token))
            export = house.text("key", "export", "homelab/bletchley", "--yes")
            server.kill9()

        with kms(tmp_path / "another kms") as new:
            new_root = new.init().root_token
            new.must("POST", "sys/mounts/transit", {"type": "transit"}, new_root)
            new.must("POST", "transit/restore/back", {"backup": export.strip()}, new_root)
            server.seal = transit_seal(new.address, new_root, "back")
            server.write_config()
            with server:
                server.wait_active()
                assert server.kv_get(root, "motto") == {"from": "another KMS"}


def test_what_the_help_says_is_what_the_real_bao_command_takes(tmp_path: Path) -> None:
    """``bao read … | kluis key import``, and ``kluis key export | bao write …``."""
    house = House(tmp_path / "house")
    house.apply()
    with kms(tmp_path / "kms") as bao:
        root = bao.init().root_token
        made_key(bao, root)
        environment = {**bao.environment, "BAO_ADDR": bao.address, "BAO_TOKEN": root}
        house.environment |= environment
        importing = (
            f"set -o pipefail; {bao_binary()} read -format=json"
            " transit/export/encryption-key/autounseal"
            f" | {_kluis()} key import homelab/bletchley --replace"
        )
        exporting = (
            f"set -o pipefail; {_kluis()} key export homelab/bletchley --yes"
            f" | {bao_binary()} write transit/restore/bletchley backup=-"
        )
        ciphertext = encrypted(bao, root, "for both")
        for script in (importing, exporting):
            done = _shell(house, script)
            assert done == 0, script
        assert decrypted(bao, root, "bletchley", ciphertext) == "for both"


def _kluis() -> str:
    return " ".join(KLUIS)


def _shell(house: House, script: str) -> int:
    done = subprocess.run(
        ["bash", "-c", script], cwd=house.folder, env=house.environment, timeout=60, check=False
    )
    return done.returncode


def test_all_versions_and_the_minimum_survive_the_way_there_and_back(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    token = house.apply()["tokens"]["bletchley"]
    with kms(tmp_path / "kms") as bao, house.serve_open():
        root = bao.init().root_token
        made_key(bao, root, allow_plaintext_backup=True)
        ciphertexts = {1: encrypted(bao, root, "one")}
        for number in (2, 3, 4):
            bao.must("PUT", "transit/keys/autounseal/rotate", {}, root)
            ciphertexts[number] = encrypted(bao, root, f"number {number}")
        configured(bao, root, min_decryption_version=3, min_encryption_version=3)
        bao.must("POST", "transit/keys/autounseal/trim", {"min_available_version": 2}, root)

        backup = exported(bao, root, "backup")
        found = house.json("key", "import", "homelab/bletchley", "--replace", stdin=backup)
        assert [found[name] for name in ("first", "minimum", "latest")] == [2, 3, 4]
        assert [_status(house, token, ciphertexts[n]) for n in (1, 2, 3, 4)] == [400, 400, 200, 200]
        house.text("key", "reinstate", "homelab/bletchley", "--from", "2")
        assert [_status(house, token, ciphertexts[n]) for n in (1, 2)] == [400, 200]
        assert house.call("PUT", "auth/token/renew-self", {}, token).status == 200  # as at a start
        assert _status(house, token, ciphertexts[4]) == 200
        house.text("key", "retire", "homelab/bletchley", "--before", "4")

        export = house.json("key", "export", "homelab/bletchley", "--yes")
        assert [export[name] for name in ("first", "minimum", "latest")] == [2, 4, 4]
        bao.must("POST", "transit/restore/back", {"backup": export["backup"]}, root)
        back = bao.must("GET", "transit/keys/back", token=root)["data"]
        assert isinstance(back, dict)
        assert (back["latest_version"], back["min_decryption_version"]) == (4, 4)
        assert (back["exportable"], back["allow_plaintext_backup"]) == (False, False)
        bao.must("POST", "transit/keys/back/config", {"min_decryption_version": 2}, root)
        for number in (2, 3, 4):
            assert decrypted(bao, root, "back", ciphertexts[number]) == f"number {number}"
        bao.must("PUT", "transit/keys/back/rotate", {}, root)
        bao.must("PUT", "transit/hmac/back", {"input": "YQ=="}, root)


def _status(house: House, token: str, ciphertext: str) -> int:
    body = {"ciphertext": ciphertext}
    return house.call("PUT", "homelab/decrypt/bletchley", body, token).status


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"derived": True}, "backup", "derives another key"),
        (
            {"derived": True, "convergent_encryption": True},
            "backup",
            "derives another key",
        ),
        ({"type": "chacha20-poly1305"}, "export/encryption-key", "not of type aes256-gcm96"),
        ({"type": "chacha20-poly1305"}, "backup", "not of type aes256-gcm96"),
        ({"type": "rsa-2048"}, "export/encryption-key", "not of type aes256-gcm96"),
        ({"type": "aes128-gcm96"}, "backup", "not of type aes256-gcm96"),
    ],
)
def test_a_real_key_that_serves_no_seal_is_refused(
    options: dict[str, object], path: str, words: str, real: tuple[Bao, str]
) -> None:
    bao, root = real
    bao.request("POST", "transit/keys/autounseal/config", {"deletion_allowed": True}, root)
    bao.request("DELETE", "transit/keys/autounseal", token=root)
    body = {"exportable": True, "allow_plaintext_backup": True, **options}
    bao.must("POST", "transit/keys/autounseal", body, root)
    with pytest.raises(UsageError) as error:
        exchange.read(exported(bao, root, path).encode())
    assert words in error.value.seen


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bao, str]]:
    with kms(tmp_path_factory.mktemp("real") / "kms") as bao:
        root = bao.init().root_token
        bao.must("POST", "sys/mounts/transit", {"type": "transit"}, root)
        yield bao, root

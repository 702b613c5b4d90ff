"""``kluis key import|export|retire|reinstate`` and ``kluis backup``: as a person uses them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from tests.support.bao import Bao, transit_seal
from tests.support.house import House, Terminal

KEY = "homelab/bletchley"


def export(*numbers: int) -> str:
    """As ``bao read -format=json transit/export/encryption-key/…`` prints it."""
    keys = {str(n): base64.b64encode(bytes([n]) * 32).decode() for n in numbers}
    return json.dumps({"data": {"keys": keys, "name": "autounseal", "type": "aes256-gcm96"}})


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = House(tmp_path_factory.mktemp("applied") / "house")
    made.apply()
    return made


@pytest.fixture
def house(applied: House, tmp_path: Path) -> House:
    return House.like(applied, tmp_path / "house")


def test_an_import_says_what_it_took_and_the_next_one_that_it_is_there(house: House) -> None:
    house.edit((CLIENT_KEYS, 'keys = ["homelab/other"]'), more=OTHER_KEY)
    house.text("apply", "--yes")
    text = house.text("key", "import", KEY, "--replace", stdin=export(3, 4))
    assert text.splitlines() == [
        "homelab/bletchley is now the key autounseal (versions 3 to 4), in place of the one made"
        " here",
        "no client may use it yet: declare one, and run kluis apply",
        "back up the keyring now",
    ]
    text = house.text("key", "import", KEY, stdin=export(4))
    assert (
        text == "homelab/bletchley has all of it already (versions 3 to 4); nothing was changed\n"
    )


CLIENT_KEYS = 'keys = ["homelab/bletchley"]'
OTHER_KEY = '\n[keyrings.homelab.keys.other]\nkind = "transit"\n'


def test_a_file_is_read_if_only_its_owner_can(house: House) -> None:
    path = house.folder / "export.json"
    path.write_text(export(1))
    path.chmod(0o640)
    error = house.refuses("key", "import", KEY, "--replace", "--file", "export.json")
    assert "open to others (mode 0640)" in error["seen"]
    path.chmod(0o600)
    found = house.json("key", "import", KEY, "--replace", "--file", "export.json")
    assert (found["replaced"], found["latest"]) == (True, 1)


@pytest.mark.parametrize("kind", ["pipe", "missing", "large", "not text"])
def test_a_file_that_is_no_export_is_refused_at_once(kind: str, house: House) -> None:
    path = house.folder / "export.json"
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind != "missing":
        path.touch(0o600)
        path.write_bytes(b"x" * 1_048_577 if kind == "large" else b"\xff\xfe")
    error = house.refuses("key", "import", KEY, "--file", "export.json")
    words = {
        "pipe": "not a regular file",
        "missing": "No such file",
        "large": "more than 1048576 bytes",
        "not text": "not text",
    }
    assert words[kind] in error["seen"]


def test_an_export_is_not_typed(house: House) -> None:
    terminal = Terminal(house, "key", "import", KEY)
    terminal.expect("standard input is a terminal")
    assert terminal.end() == 1


def test_a_person_is_asked_before_a_key_is_printed(house: House) -> None:
    terminal = Terminal(house, "key", "export", KEY)
    terminal.expect("warning: standard output is a terminal")
    terminal.expect("print the secret material of homelab/bletchley?")
    terminal.type("n")
    terminal.expect("nothing was printed")
    assert terminal.end() == 1
    assert "nobody to ask" in house.refuses("key", "export", KEY)["seen"]
    assert not (house.state / "audit.jsonl").exists()


def test_the_material_goes_to_standard_output_and_nowhere_else(house: House) -> None:
    with house.serve_open() as service:
        done = house.kluis("key", "export", KEY, "--yes")
        log = service.log
    blob = done.out.strip()
    material = json.loads(base64.b64decode(blob))["policy"]["keys"]["1"]["key"]
    assert "secret material of homelab/bletchley, version 1" in done.err
    files = b"".join(data for _, data in house.snapshot().values()).decode("latin-1")
    for secret in (blob, material):
        assert secret not in done.err + log + files
    assert f'"event":"key-export","user":"{os.getuid()}"' in files


def test_a_real_server_comes_to_the_new_version_by_two_restarts(tmp_path: Path) -> None:
    """What ``kluis key retire --help`` says of a stock server, measured."""
    house = House(tmp_path / "house")
    token = house.apply()["tokens"]["bletchley"]
    with house.serve_open():
        seal = transit_seal(f"http://127.0.0.1:{house.port}", token, "bletchley", "homelab/")
        with Bao(tmp_path / "bao", seal) as bao:
            root = bao.init().root_token
            bao.kv_put(root, "garden", {"gate": "oak"})
            house.text("key", "rotate", KEY)
            house.text("backup", "note", "restic", "--key", KEY)
            needed = []
            for _ in range(3):
                found = house.json("key", "retire", KEY, "--before", "2", "--dry-run")
                needed.append(found["clients"]["bletchley"]["needs"])
                bao.kill9()
                bao.start()
                bao.wait_active()
            assert needed == [1, 1, 2]
            text = house.text("key", "retire", KEY, "--before", "2", "--dry-run")
            assert "needed version 2 at its last unseal" in text
            assert "backup: restic; needs version 1" in text
            assert "can't be retired now" in text
            house.text("backup", "forget", "homelab/1")
            text = house.text("key", "retire", KEY, "--before", "2")
            assert text == "versions of homelab/bletchley below 2 decrypt nothing any more\n"
            bao.kill9()
            bao.start()
            bao.wait_active()
            assert bao.kv_get(root, "garden") == {"gate": "oak"}


def test_what_retire_and_reinstate_say(house: House) -> None:
    house.text("key", "rotate", KEY)
    text = house.text("key", "retire", KEY, "--before", "2", "--dry-run")
    assert "no unseal is on record" in text
    text = house.text("key", "retire", KEY, "--before", "2", "--dry-run", "--accept-unknown")
    assert "can be retired" in text
    house.text("key", "retire", KEY, "--before", "2", "--accept-unknown")
    again = house.text("key", "retire", KEY, "--before", "2", "--accept-unknown")
    assert "has the minimum 2 already" in again
    text = house.text("key", "reinstate", KEY, "--from", "1")
    assert text == "versions of homelab/bletchley from 1 on decrypt again\n"
    assert "has the minimum 1 already" in house.text("key", "reinstate", KEY, "--from", "1")


def test_backups_in_words(house: House) -> None:
    text = house.text("backup", "note", "restic 2026-11", "--key", KEY, "--version", "1")
    assert text == "noted as homelab/1: restic 2026-11 needs version 1 of homelab/bletchley\n"
    assert "restic 2026-11" in house.text("backup", "list")
    assert "is forgotten" in house.text("backup", "forget", "homelab/1")
    assert house.json("backup", "list") == {"backups": {}}

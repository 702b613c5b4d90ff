"""``kluis client`` and ``kluis key``: tokens that overlap, expire and end; versions of keys."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bao import Bao, transit_seal
from tests.support.house import House

PLAINTEXT = {"plaintext": base64.b64encode(b"the root key").decode()}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("served") / "house")
    house.apply()
    with house.serve_open():
        yield house


@pytest.fixture
def served(running: House) -> tuple[House, str]:
    """A house that is served, and its client's only token."""
    running.json("client", "revoke", "bletchley")
    return running, running.json("client", "issue", "bletchley")["token"]


def status(house: House, token: str) -> int:
    return house.call("PUT", "homelab/encrypt/bletchley", PLAINTEXT, token).status


def test_the_list_shows_keys_conditions_and_times_but_no_token(served: tuple[House, str]) -> None:
    house, token = served
    found = house.json("client", "list")["clients"]["bletchley"]
    assert found["keys"] == ["homelab/bletchley"]
    assert (found["certificate_san"], found["networks"]) == (None, [])
    assert [(t["expires"], sorted(t)) for t in found["tokens"]] == [(None, ["expires", "issued"])]
    assert "never expires" in house.text("client", "list")
    assert token not in str(found)


def test_a_new_token_and_the_old_one_overlap(served: tuple[House, str]) -> None:
    house, old = served
    issued = house.json("client", "issue", "bletchley", "--overlap", "1h")
    assert (issued["client"], issued["expires"]) == ("bletchley", None)
    assert [status(house, old), status(house, issued["token"])] == [200, 200]
    tokens = house.json("client", "list")["clients"]["bletchley"]["tokens"]
    assert [token["expires"] for token in tokens] == [issued["older_tokens_end"], None]


def test_without_an_overlap_the_old_token_ends_at_once(served: tuple[House, str]) -> None:
    house, old = served
    new = house.json("client", "issue", "bletchley", "--overlap", "0")["token"]
    assert [status(house, old), status(house, new)] == [403, 200]


def test_a_token_expires_when_it_was_told_to(served: tuple[House, str]) -> None:
    house, _ = served
    new = house.json("client", "issue", "bletchley", "--overlap", "0", "--expires", "1s")["token"]
    answers = {status(house, new)}
    while 403 not in answers:
        answers.add(status(house, new))
    assert answers <= {200, 403}


def test_an_expiry_is_announced_in_status_and_log(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    house.json("client", "issue", "bletchley", "--overlap", "0", "--expires", "20d")
    assert house.json("status")["expires_in_days"] == {"bletchley": 19}
    assert "The token of bletchley expires in 19 days." in house.text("status")
    with house.serve() as service:
        service.wait_logged("token expires")


def test_a_revoked_client_gets_nothing_until_a_new_token(served: tuple[House, str]) -> None:
    house, token = served
    assert house.json("client", "revoke", "bletchley") == {"client": "bletchley", "revoked": True}
    assert status(house, token) == 403
    assert status(house, house.json("client", "issue", "bletchley")["token"]) == 200
    assert house.apply()["tokens"] == {}


def test_a_token_is_shown_once_in_words_too(served: tuple[House, str]) -> None:
    house, _ = served
    shown = house.text("client", "issue", "bletchley")
    assert shown.startswith("Token of bletchley, shown once: kluis_")
    assert "kluis client issue bletchley" in house.text("client", "revoke", "bletchley")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("issue", "nobody"), "there is no client nobody"),
        (("revoke", "nobody"), "there is no client nobody"),
        (("issue", "bletchley", "--overlap", "soon"), "'soon' is not a duration"),
        (("issue", "bletchley", "--overlap", "-1h"), "'-1h' is not a duration"),
        (("issue", "bletchley", "--overlap", "9999999d"), "more than a hundred years"),
        (("issue", "bletchley", "--expires", "9999999d"), "more than a hundred years"),
        (("issue", "bletchley", "--expires", "0"), "of no use"),
    ],
)
def test_a_token_that_can_not_be_is_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    house = House(tmp_path)
    house.apply()
    before = house.snapshot()
    done = house.kluis("client", *arguments)
    assert done.code == 1
    assert words in done.err
    assert "Traceback" not in done.err
    assert house.snapshot() == before


def test_keys_are_listed_and_rotated(served: tuple[House, str]) -> None:
    house, token = served
    before = house.call("PUT", "homelab/encrypt/bletchley", PLAINTEXT, token).body["data"]
    rotated = house.json("key", "rotate", "homelab/bletchley")
    assert rotated == {"key": "homelab/bletchley", "latest": 2}
    assert house.json("key", "list")["keys"] == {
        "homelab/bletchley": {"kind": "transit", "latest": 2, "minimum": 1, "kept": None}
    }
    assert isinstance(before, dict)
    old = {"ciphertext": before["ciphertext"]}
    assert house.call("PUT", "homelab/decrypt/bletchley", old, token).status == 200
    assert "homelab/bletchley" in house.text("key", "list")


@pytest.mark.parametrize("key", ["homelab/nothing", "homelab", "nowhere/bletchley", "", "/"])
def test_a_key_that_does_not_exist_can_not_be_rotated(key: str, tmp_path: Path) -> None:
    house = House(tmp_path)
    house.apply()
    before = house.snapshot()
    done = house.kluis("key", "rotate", key)
    assert done.code == 1
    assert done.err.count("error: ") == 1
    assert "  next: " in done.err
    assert house.snapshot() == before


def test_a_stock_server_restarts_after_its_key_was_rotated_and_its_token_replaced(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house")
    token = house.apply()["tokens"]["bletchley"]
    with house.serve_open():
        address = f"http://127.0.0.1:{house.port}"
        seal = transit_seal(address, token, "bletchley", "homelab/")
        with Bao(tmp_path / "bao", seal=seal) as bao:
            root = bao.init().root_token
            bao.kv_put(root, "garden", {"gate": "oak"})
            house.text("key", "rotate", "homelab/bletchley")
            bao.kill9()
            bao.start()
            bao.wait_active()
            new = house.json("client", "issue", "bletchley", "--overlap", "0")["token"]
            bao.kill9()
            bao.seal = transit_seal(address, new, "bletchley", "homelab/")
            bao.write_config()
            bao.start()
            bao.wait_active()
            assert bao.kv_get(root, "garden") == {"gate": "oak"}

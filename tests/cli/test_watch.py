"""``kluis watch --once``: one pass, and an exit code that a CronJob can use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import ANCHORS, KEYRING, House, one_error
from tests.support.watched import Shamir, WatchingHouse, server_table, shamir


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shamir]:
    with shamir(tmp_path_factory.mktemp("server") / "bao") as made:
        yield made


@pytest.fixture(scope="module")
def prepared(server: Shamir, tmp_path_factory: pytest.TempPathFactory) -> WatchingHouse:
    made = WatchingHouse(tmp_path_factory.mktemp("prepared") / "house", server_table("old", server))
    made.apply()
    made.keep("old", server)
    return made


@pytest.fixture
def house(prepared: WatchingHouse, server: Shamir, tmp_path: Path) -> WatchingHouse:
    """With the shares of the server, which is unsealed."""
    made = WatchingHouse.copy(prepared, tmp_path / "house")
    if server.bao.health() != 200:
        server.restart()
        server.bao.wait_sealed()
        server.unseal()
    return made


def test_what_is_sealed_is_unsealed_and_woken_and_the_code_says_how_all_are(
    house: WatchingHouse, server: Shamir
) -> None:
    house.edit(("[servers.old]", '[servers.old]\nwake = ["note"]'), more=NOTE)
    assert house.once(0)["outcomes"] == []

    house.text("server", "hold", "old", "--for", "1h")
    server.restart()
    server.bao.wait_sealed()
    held = house.once(2)
    assert (held["state"], held["watched"]) == ("sealed", False)
    assert held["servers"]["old"]["condition"] == "held"
    assert server.bao.health() == 503

    house.text("server", "release", "old")
    back = house.once(0)
    assert back["state"] == "unsealed"
    assert back["servers"]["old"]["nodes"][server.bao.address]["active"] is True
    assert [(one["hook"], one["ok"]) for one in back["outcomes"]] == [("note", True)]
    assert (house.folder / "woken").read_text() == "old\n"
    shown = house.text("watch", "--once")
    assert "old: unsealed" in shown


NOTE = """
[wake.note]
kind = "command"
command = ["sh", "-c", "echo $KLUIS_SERVER >> woken"]
"""


def test_without_its_keyring_a_server_stays_sealed_as_after_a_power_cut(
    house: WatchingHouse, server: Shamir
) -> None:
    server.restart()
    server.bao.wait_sealed()
    house.key.rename(house.folder / "away.key")
    locked = house.once(2)["servers"]["old"]["nodes"][server.bao.address]
    assert (locked["condition"], locked["alarm"]) == ("sealed", "locked")
    assert "kluis unlock homelab" in locked["next"]
    assert server.bao.health() == 503


@pytest.mark.parametrize(
    ("before", "after", "condition", "alarm"),
    [
        ("[servers.old]", "[servers.old]\nthreshold = 3", "unsealed", "seal"),
        ("http://127.0.0.1:PORT", "http://127.0.0.1:1", "unreachable", None),
    ],
    ids=["another server", "nobody listens"],
)
def test_what_a_person_must_look_at_is_an_error(
    house: WatchingHouse,
    server: Shamir,
    before: str,
    after: str,
    condition: str,
    alarm: str | None,
) -> None:
    house.edit((before.replace("PORT", str(server.bao.port)), after))
    found = house.once(1)
    assert found["state"] == "alarm"
    (node,) = found["servers"]["old"]["nodes"].values()
    assert (node["condition"], node["alarm"]) == (condition, alarm)
    assert all((node["seen"], node["means"], node["next"]))


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_without_a_server_there_is_nothing_to_watch(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    house = House(tmp_path / "house", ANCHORS + KEYRING)
    house.apply()
    said = one_error(house.kluis("watch", *arguments))
    assert said[0] == "kluis.toml declares no server"

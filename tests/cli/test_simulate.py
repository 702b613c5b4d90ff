"""``kluis simulate``: open or locked after a loss, in words, in JSON and by exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_contracts import README_RULE
from tests.support.house import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path, README_RULE)
    made.edit(("[anchors.nas]\n", '[anchors.nas]\ndomain = "house"\n'))
    made.edit(("[anchors.house-tpm]\n", '[anchors.house-tpm]\ndomain = "house"\n'))
    return made


def test_a_keyring_that_stays_open_says_by_which_ways(house: House) -> None:
    assert house.text("simulate", "--lose", "nas,cloud") == (
        "homelab: open without cloud and nas.\n"
        "Each of these lines opens it:\n"
        "  house-tpm\n"
        "  3 of the 5 shares of family\n"
    )
    assert house.text("simulate", "--lose-domain", "house", "--lose", "family:3") == (
        "homelab: open without house-tpm, nas and 3 of the 5 shares of family.\n"
        "It opens with cloud and proxmox.\n"
    )


def test_a_keyring_that_is_locked_says_what_has_to_come_back(house: House) -> None:
    assert house.text(
        "simulate", "homelab", "--lose", "cloud,family:3", "--lose-domain", "house", code=2
    ) == (
        "homelab: locked without cloud, house-tpm, nas and 3 of the 5 shares of family.\n"
        "It needs one of these lines:\n"
        "  cloud\n"
        "  1 more share of family\n"
        "  house-tpm\n"
        "  nas\n"
    )
    assert "  3 shares of family\n" in house.text("simulate", "--only", "nas", code=2)
    house.edit(("house-tpm or 2 of (nas, cloud, proxmox) or family", "house-tpm"))
    locked = house.text("simulate", "--lose", "house-tpm", code=2)
    assert locked == "homelab: locked without house-tpm.\nIt needs house-tpm.\n"


def test_the_json_is_by_keyring(house: House) -> None:
    found = house.json("simulate", "--only", "nas,family:2", code=2)
    assert found == {
        "homelab": {
            "state": "locked",
            "opens": "house-tpm or 2 of (nas, cloud, proxmox) or family",
            "lost": ["cloud", "house-tpm", "proxmox"],
            "people": {"family": {"threshold": 3, "shares": 5, "left": 2}},
            "ways": [],
            "needs": [["cloud"], ["family"], ["house-tpm"], ["proxmox"]],
        }
    }


def test_one_locked_keyring_of_two_makes_the_exit_code_2(house: House) -> None:
    house.edit(
        more='[keyrings.office]\nstore = { kind = "directory", path = "office" }\nopens = "nas"\n'
    )
    both = house.json("simulate", "--lose", "nas", code=2)
    assert {name: said["state"] for name, said in both.items()} == {
        "homelab": "open",
        "office": "locked",
    }
    house.text("simulate", "homelab", "--lose", "nas", code=0)


def test_a_misspelt_name_is_one_error_with_a_suggestion(house: House) -> None:
    error = house.refuses("simulate", "--lose", "house-tmp")
    assert (error["class"], error["next"]) == ("UsageError", "did you mean house-tpm?")
    assert house.refuses("simulate", "--lose-domain", "huose")["next"] == "did you mean house?"
    assert "no keyring nowhere" in house.refuses("simulate", "nowhere")["seen"]

"""The JSON that commands print is a contract, and so are their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.house import ANCHORS, CLIENT, FACADE, KEYRING, House

README_RULE = """\
[anchors.house-tpm]
kind = "static"
file = "house-tpm.key"

[anchors.nas]
kind = "static"
file = "nas.key"

[anchors.cloud]
kind = "static"
file = "cloud.key"

[anchors.proxmox]
kind = "static"
file = "proxmox.key"

[anchors.family]
kind = "people"
threshold = 3
shares = 5

[keyrings.homelab]
store = { kind = "directory", path = "state" }
opens = "house-tpm or 2 of (nas, cloud, proxmox) or family"
"""


def test_apply_prints_shares_tokens_and_keyrings(tmp_path: Path) -> None:
    made = House(tmp_path).apply()
    assert sorted(made) == ["keyrings", "shares", "tokens"]
    assert list(made["shares"]) == ["family"]
    assert [len(share.split()) for share in made["shares"]["family"]] == [33, 33, 33]
    assert list(made["tokens"]) == ["bletchley"]
    assert made["tokens"]["bletchley"].startswith("kluis_")
    homelab = made["keyrings"]["homelab"]
    assert (homelab["changed"], homelab["epoch"], homelab["revision"]) == (True, 1, 1)
    assert homelab["opens"] == "disk or family"
    assert homelab["away"] == {}


def test_a_second_apply_changes_not_one_byte_and_says_so(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.apply()
    bytes_before = {p: p.read_bytes() for p in house.state.rglob("*") if p.is_file()}
    again = house.apply()
    assert (again["shares"], again["tokens"]) == ({}, {})
    assert again["keyrings"]["homelab"]["changed"] is False
    assert again["keyrings"]["homelab"]["steps"] == []
    assert "homelab: nothing to change (revision 1)" in house.text("apply")
    assert {p: p.read_bytes() for p in house.state.rglob("*") if p.is_file()} == bytes_before


def test_status_says_state_epoch_revision_and_each_anchor(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.apply()
    homelab = house.json("status")["keyrings"]["homelab"]
    assert (homelab["state"], homelab["epoch"], homelab["revision"]) == ("open", 1, 1)
    disk, family = homelab["anchors"]["disk"], homelab["anchors"]["family"]
    assert sorted(disk) == ["means", "next", "notice", "seen", "state"]
    assert (disk["state"], family["state"]) == ("ok", "waiting")
    assert homelab["people"] == {"family": {"entered": 0, "needed": 2, "shares": 3}}


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("removed", "missing"),
        ("readable", "refused"),
        ("short", "misconfigured"),
        ("other", "damaged"),
    ],
)
def test_status_tells_each_failure_of_an_anchor_by_its_class(
    fault: str, state: str, tmp_path: Path
) -> None:
    house = House(tmp_path)
    house.apply()
    match fault:
        case "removed":
            house.key.unlink()
        case "readable":
            house.key.chmod(0o644)
        case "short":
            house.key.write_bytes(b"too short")
        case _:
            house.make_key("anchor.key")
    found = house.json("status", code=2)["keyrings"]["homelab"]
    disk = found["anchors"]["disk"]
    assert disk["state"] == state
    assert all(disk[what] for what in ("seen", "means", "next")), disk
    assert found["needs"] == [["family"]]


def test_status_exits_0_open_2_locked_1_error(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.text("status", code=2)  # nothing was made yet
    house.apply()
    house.text("status", code=0)
    house.key.unlink()
    house.text("status", code=2)
    house.file.unlink()
    house.text("status", code=1)


def test_one_locked_keyring_of_two_makes_the_exit_code_2(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.edit(
        more='[anchors.nas]\nkind = "static"\nfile = "nas.key"\n'
        '[keyrings.office]\nstore = { kind = "directory", path = "office" }\nopens = "nas"\n'
    )
    house.make_key("nas.key")
    house.apply()
    (tmp_path / "nas.key").unlink()
    found = house.json("status", code=2)["keyrings"]
    assert {name: keyring["state"] for name, keyring in found.items()} == {
        "homelab": "open",
        "office": "locked",
    }


def test_status_of_a_keyring_that_was_not_made_yet_says_what_to_do(tmp_path: Path) -> None:
    house = House(tmp_path)
    found = house.json("status", code=2)["keyrings"]["homelab"]
    assert (found["state"], found["epoch"], found["revision"]) == ("locked", 0, 0)
    assert "homelab: not made yet; kluis apply makes it." in house.text("status", code=2)


def test_explain_prints_sorted_minimal_quorums_and_cuts(tmp_path: Path) -> None:
    house = House(tmp_path, README_RULE)
    said = house.json("explain", "homelab")["homelab"]
    assert said["quorums"] == [
        ["cloud", "nas"],
        ["cloud", "proxmox"],
        ["family"],
        ["house-tpm"],
        ["nas", "proxmox"],
    ]
    assert said["cuts"] == [
        ["cloud", "family", "house-tpm", "nas"],
        ["cloud", "family", "house-tpm", "proxmox"],
        ["family", "house-tpm", "nas", "proxmox"],
    ]


def test_verify_exits_0_when_all_work_1_when_one_failed_2_when_locked(tmp_path: Path) -> None:
    house = House(tmp_path, ANCHORS + KEYRING)
    house.edit(
        ("disk or family", "disk or nas or family"),
        more='[anchors.nas]\nkind = "static"\nfile = "nas.key"\n',
    )
    house.make_key("nas.key")
    house.apply()
    found = house.json("verify", "homelab")["homelab"]["anchors"]
    assert {name: said["state"] for name, said in found.items()} == {
        "disk": "ok",
        "nas": "ok",
        "family": "waiting",
    }
    (tmp_path / "nas.key").unlink()
    found = house.json("verify", "homelab", code=1)["homelab"]["anchors"]
    assert (found["disk"]["state"], found["nas"]["state"]) == ("ok", "missing")
    house.key.unlink()
    assert house.json("verify", "homelab", code=2)["homelab"]["state"] == "locked"


def test_the_configuration_is_found_by_option_by_variable_and_in_the_folder(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    elsewhere = House(tmp_path / "elsewhere")
    elsewhere.file.unlink()
    assert elsewhere.json("status", "--config", str(house.file))["keyrings"]
    named = elsewhere.kluis("status", environment={"KLUIS_CONFIG": str(house.file)})
    assert named.code == 0
    assert elsewhere.kluis("status").code == 1


def test_a_keyring_without_facade_and_clients_is_enough(tmp_path: Path) -> None:
    house = House(tmp_path, ANCHORS + KEYRING)
    assert house.apply()["tokens"] == {}
    assert house.json("status")["keyrings"]["homelab"]["state"] == "open"


def test_paper_of_people_in_two_keyrings_is_told_apart(tmp_path: Path) -> None:
    house = House(tmp_path, ANCHORS + KEYRING + FACADE + CLIENT)
    house.edit(
        more='[keyrings.office]\nstore = { kind = "directory", path = "office" }\n'
        'opens = "disk or family"\n'
    )
    assert sorted(house.apply()["shares"]) == ["homelab/family", "office/family"]

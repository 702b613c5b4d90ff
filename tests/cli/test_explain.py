"""``kluis explain``: its sentences, its JSON, its exit codes, and the files it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from kluis.cli import sentences
from kluis.service.explain import explaining
from tests.cli.test_contracts import README_RULE
from tests.service.installations import home, people, static, transit
from tests.support.house import House

ANCHORS = {
    "house-tpm": static(domain="house"),
    "nas": static(domain="house"),
    "cloud": static(domain="aws"),
    "proxmox": static(domain="house"),
    "family": people(3, 5),
    "anna": people(1, 1),
    "board": people(2, 2),
    "disk": static(),
}
SELF = "https://bao.example:8200"
CLIENT = {"bletchley": (["homelab"], SELF)}


def explained(rule: str, **more: dict[str, object]) -> str:
    one = home(rules={"homelab": rule}, anchors=ANCHORS | more, clients=CLIENT)
    return "\n".join(sentences.explained(explaining.explain([one], "homelab")))


EXPLAINED = """\
homelab opens with: house-tpm or 2 of (nas, cloud, proxmox) or family

Each of these opens it alone, so none of them may be stolen:
  house-tpm
  3 of the 5 shares of family
Each of these pairs opens it, so no pair may be stolen together:
  cloud and nas
  cloud and proxmox
  nas and proxmox

It is locked for good only when all of one of these lines is lost:
  cloud, house-tpm, nas and 3 of the 5 shares of family
  cloud, house-tpm, proxmox and 3 of the 5 shares of family
  house-tpm, nas, proxmox and 3 of the 5 shares of family
Any 3 anchors may be lost at once, whichever they are.

By domain, which fails as a whole and is stolen as a whole:
  aws (cloud): lost, it still opens; stolen, it is not enough.
  house (house-tpm, nas and proxmox): lost, it still opens; stolen, it opens.
family has no domain: each share counts as a place apart.
Any 3 places may be lost at once. A thief needs to empty only one.

1 warning:
  single-theft: house-tpm opens homelab alone
    why:  whoever has it and the document has every key of homelab
    next: ask for a second one with 'and' or '2 of (…)', or guard it like all that it opens"""


def test_a_rule_is_explained_in_sentences() -> None:
    assert explained("house-tpm or 2 of (nas, cloud, proxmox) or family") == EXPLAINED


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("disk", "Needed every time: disk."),
        ("disk and anna", "Needed every time: disk and the one share of anna."),
        ("disk and anna", "No single theft opens it."),
        ("disk or cloud", "Any one anchor may be lost, whichever it is."),
        ("disk or cloud", "  cloud\n  disk\n\nIt is locked"),
        ("board", "  both shares of board\n\nIt is locked"),
        ("board", "  1 of the 2 shares of board\nNeeded every time: both shares of board."),
        ("family or disk", "  disk and 3 of the 5 shares of family\nAny one"),
        ("disk and cloud and anna", "Each of these lines opens it, so no line may be stolen"),
        (
            "2 of (disk, cloud, anna)",
            "anna and disk have no domain: each of them counts as a place apart.",
        ),
        ("2 of (nas, disk, board)", "each of them, and each share, counts as a place apart."),
        ("nas or disk", "disk has no domain: it counts as a place apart."),
        ("nas and cloud or family", "A thief has to empty at least 2."),
        ("nas or family", "Any 3 places may be lost at once. A thief needs to empty only one."),
        ("2 of (nas, cloud, anna)", "Any one place may be lost. A thief has to empty at least 2."),
        ("nas or cloud or disk", "Any 2 places may be lost at once."),
        ("nas and house-tpm", "There is a place that may not be lost."),
        ("2 of (disk, anna, board)", 'No anchor names its domain (like domain = "house")'),
        ("2 of (disk, anna, board)", "\nNo warnings."),
        ("2 of (nas, proxmox, cloud)", "  domain-theft: a thief in house has enough to open"),
        ("2 of (nas, proxmox, cloud)", "    why:  nas and proxmox are all there"),
    ],
)
def test_sentences_say_it_plainly(rule: str, words: str) -> None:
    assert words in explained(rule)


def test_a_rule_of_many_sets_shows_the_first_of_them() -> None:
    more = {f"a{n}": static() for n in range(8)}
    shown = explained(f"2 of ({', '.join(more)})", **more)
    assert "  a1 and a6\n  and 16 more: --output json lists them all\n" in shown


def test_a_harmless_circle_is_told_before_the_warnings() -> None:
    shown = explained("bao or disk", bao=transit(SELF))
    assert "\n\nA circle: bao is served by bletchley (https://bao.example:8200)," in shown
    assert "It does no harm as long as homelab opens in another way: disk.\n\n2 warnings:" in shown


# -- the command


def two_houses(folder: Path) -> tuple[House, House]:
    """Two installations, each with an anchor that the other's facade serves."""
    made = [House(folder / "near"), House(folder / "far")]
    for one, other in (made, made[::-1]):
        one.edit(
            ("disk or family", "disk and mirror or family"),
            more='[anchors.mirror]\nkind = "transit"\nmount = "homelab"\nkey = "bletchley"\n'
            f'address = "http://localhost:{other.port}/"\n'
            'auth = { kind = "token", file = "token" }\n',
        )
    return made[0], made[1]


def test_a_circle_across_two_installations_is_found_with_both_files(tmp_path: Path) -> None:
    near, far = two_houses(tmp_path)
    assert near.json("explain")["homelab"]["cold_start"] == "itself"
    said = near.json("explain", "homelab", "--also", "../far/kluis.toml")["homelab"]
    assert said["cold_start"] == "people"
    assert [warning["code"] for warning in said["warnings"]] == ["cold-start"]
    assert [hop["needs"] for hop in said["circles"][0]["hops"]] == [
        "homelab of ../far/kluis.toml",
        "homelab",
    ]
    for house in (near, far):
        house.edit(("disk and mirror or family", "disk and mirror"))
    shown = near.text("explain", "--also", str(far.file))
    assert "circle: after an outage of everything homelab never comes back" in shown


def test_the_own_file_named_once_more_is_not_another_installation(tmp_path: Path) -> None:
    near, _ = two_houses(tmp_path)
    again = near.json("explain", "--also", "kluis.toml", "--also", str(near.file))
    assert again == near.json("explain")


def test_another_installation_that_can_not_be_read_is_one_error(tmp_path: Path) -> None:
    house = House(tmp_path)
    error = house.refuses("explain", "homelab", "--also", "nowhere.toml")
    assert (error["class"], "nowhere.toml" in error["seen"]) == ("SettingsError", True)


def test_strict_fails_just_when_there_are_warnings(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert house.json("explain", "--strict", code=1)["homelab"]["warnings"]
    house.text("explain", code=0)
    house.edit(("disk or family", "family"))
    assert house.json("explain", "--strict", code=0)["homelab"]["warnings"] == []


def test_without_a_name_every_keyring_is_explained(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.edit(
        more='[keyrings.office]\nstore = { kind = "directory", path = "office" }\nopens = "disk"\n'
    )
    assert list(house.json("explain")) == ["homelab", "office"]
    assert "\n\noffice opens with: disk\n" in house.text("explain")
    assert list(house.json("explain", "office")) == ["office"]


def test_explaining_needs_nothing_but_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, README_RULE)
    before = house.snapshot()
    house.text("explain")
    assert house.snapshot() == before


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (('keys = ["homelab/', 'address = "bao.example"\nkeys = ["homelab/'), "clients.bletchley"),
        (('keys = ["homelab/', 'address = 8200\nkeys = ["homelab/'), "or a list of them"),
        (('keys = ["homelab/', 'address = "https://a:99999"\nkeys = ["homelab/'), "its port can't"),
        (('tls = "off"', 'tls = "off"\naddress = ["https://"]'), "facade.address"),
        (('kind = "transit"', 'kind = "transit"\naddress = "x"'), "keyrings.homelab.keys"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_with_its_place(
    edit: tuple[str, str], words: str, tmp_path: Path
) -> None:
    house = House(tmp_path)
    house.edit(edit)
    error = house.refuses("explain")
    assert error["class"] == "SettingsError"
    assert words in error["seen"]

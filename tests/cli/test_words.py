"""What people read, at 80 columns."""

from __future__ import annotations

from pathlib import Path

from tests.cli.test_contracts import README_RULE
from tests.support.house import House, Terminal


def test_status_and_explain_fit_a_terminal_of_80_columns(tmp_path: Path) -> None:
    house = House(tmp_path / "house", README_RULE)
    for name in ("house-tpm", "nas", "cloud", "proxmox"):
        house.make_key(f"{name}.key")
    house.apply()
    (house.folder / "house-tpm.key").unlink()
    (house.folder / "nas.key").unlink()
    (house.folder / "cloud.key").chmod(0o644)
    house.environment["COLUMNS"] = "80"
    shown = house.text("status", code=2)
    assert "It would open with 3 shares of family." in shown
    assert "  cloud      refused  others can read\n" in shown
    for text in (shown, house.text("explain", "homelab")):
        assert [line for line in text.splitlines() if len(line) > 80 and "/" not in line] == []


def test_a_locked_keyring_says_what_would_open_it_with_the_shares_so_far(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    shares = house.apply()["shares"]["family"]
    with house.serve():
        house.text("lock", "homelab")
        house.text("unlock", "homelab", stdin=shares[0], code=2)
        shown = house.text("status", code=2)
    assert "homelab: locked by hand (epoch 1, revision 1)" in shown
    assert "It would open with disk, or 1 more share of family." in shown
    assert "not asked: somebody locked the keyring by hand" in shown


def test_the_plan_reads_as_sentences_and_marks_what_destroys(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    terminal = Terminal(house, "apply")
    terminal.expect("homelab:\n  - make the keyring homelab, opened by: disk or family")
    terminal.expect("  - make the key bletchley (transit)\n")
    terminal.expect("  - admit the client bletchley to bletchley; print its token\n")
    terminal.type("y")
    assert terminal.end() == 0
    house.edit(("[keyrings.homelab.keys.bletchley]", "[keyrings.homelab.keys.colossus]"))
    house.edit(('keys = ["homelab/bletchley"]', 'keys = ["homelab/colossus"]'))
    done = house.kluis("apply", "--yes")
    assert "  ! destroy the key bletchley: what it sealed is lost for good\n" in done.out
    assert done.code == 1


def test_nothing_in_a_file_can_reach_the_terminals_controls(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.edit(more='\n"\\u001b[2Jx\\ny" = 1\n')
    error = house.kluis("status")
    assert error.code == 1
    assert "\x1b" not in error.err
    assert error.err.count("\n") == 3

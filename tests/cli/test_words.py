"""What people read, at 80 columns."""

from __future__ import annotations

import pty
import subprocess
import termios
from pathlib import Path

import pytest

from kluis.cli.server import shown
from tests.cli.test_contracts import README_RULE
from tests.support.house import KLUIS, House, Terminal


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
    with house.serve_open():
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


AT = "2026-11-22T07:06:42Z"
LONG = "https://vault-0.vault-internal.openbao-test.svc.cluster.local:8200"
NODE: dict[str, object] = {
    "condition": "unsealed",
    "since": AT,
    "active": True,
    "alarm": None,
    "version": "2.7.2",
    "seen": "",
    "means": "",
    "next": "",
    "certificate_ends": None,
}
LOCKED: dict[str, object] = {
    "condition": "sealed",
    "since": AT,
    "active": False,
    "alarm": "locked",
    "version": "",
    "seen": "https://vault-1.example:8200 is sealed, and the keyring that its shares are kept in,"
    " homelab, is locked",
    "means": "its anchors are away, or refuse to open what was sealed for them at some time before",
    "next": "kluis unlock homelab",
    "certificate_ends": None,
}
SERVER: dict[str, object] = {
    "condition": "unsealed",
    "down_since": None,
    "hold": None,
    "user": None,
    "seen": "",
    "means": "",
    "next": "",
}
LISTED = f"""\
away: sealed (1 of 2 nodes unsealed; alarm: locked; down since
  {AT}; held until it is released)
  https://vault-0.example:8200  unsealed  active, version 2.7.2
    since {AT}, certificate until 2026-12-22T07:06:42Z
  https://vault-1.example:8200  sealed
    since {AT}
    alarm: locked
    this node is sealed, and the keyring that its shares are kept in, homelab,
      is locked
    why:  its anchors are away, or refuse to open what was sealed for them at
          some time before
    next: kluis unlock homelab
long: unsealed (1 of 1 nodes unsealed)
  {LONG}  unsealed
    active, version 2.7.2
    since {AT}
"""


def test_servers_are_listed_in_80_columns_each_address_once_and_a_pipe_gets_whole_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = {
        "https://vault-0.example:8200": {**NODE, "certificate_ends": "2026-12-22T07:06:42Z"},
        "https://vault-1.example:8200": LOCKED,
    }
    held = {"condition": "sealed", "down_since": AT, "hold": {"seen": "", "until": None}}
    found = {
        "away": {**SERVER, **held, "nodes": nodes},
        "long": {**SERVER, "nodes": {LONG: NODE}},
    }
    monkeypatch.setenv("COLUMNS", "80")
    shown.servers(found, watched=True)
    assert capsys.readouterr().out == LISTED
    monkeypatch.delenv("COLUMNS")
    shown.servers(found, watched=True)
    piped = capsys.readouterr().out
    assert piped.split() == LISTED.split()
    assert max(map(len, piped.splitlines())) > 80


def on_a_terminal(house: House, columns: int, *arguments: str) -> str:
    """What a command says on standard error, which is a terminal of so many columns."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with open(master, "rb", buffering=0) as terminal, open(slave, "wb") as err:
        subprocess.run(
            [*KLUIS, *arguments],
            cwd=house.folder,
            env=house.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            timeout=60,
            check=False,
        )
        return terminal.read(65536).decode()


def test_an_error_is_folded_where_the_width_is_known_and_a_path_is_not_broken(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    asked = ("status", "--config", f"{'x' * 60}/a-folder-with-a-long-name/kluis.toml")
    piped, folded = house.kluis(*asked), on_a_terminal(house, 60, *asked)
    assert piped.err.count("\n") == 3
    assert folded.split() == piped.err.split()
    lines = folded.splitlines()
    assert [line for line in lines if len(line) > 60 and asked[-1] not in line] == []
    assert [
        line for line in lines[1:] if not line.startswith(("  why:  ", "  next: ", " " * 7))
    ] == []

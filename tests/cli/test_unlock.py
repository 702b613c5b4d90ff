"""``kluis unlock`` and ``kluis lock``: people with paper, one after another."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.house import House, Terminal, one_error

FOREIGN = (
    "taste thorn academic acne aluminum salary scholar presence volume yelp pupal typical moisture"
    " humidity raspy velvet learn early smell rhythm grasp legend length diminish hybrid ounce"
    " discuss shaft beyond inmate view lyrics similar"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, list[str]]]:
    """A house that is served, and its paper."""
    house = House(tmp_path_factory.mktemp("served") / "house")
    shares = house.apply()["shares"]["family"]
    with house.serve_open():
        yield house, shares


@pytest.fixture
def locked(served: tuple[House, list[str]]) -> tuple[House, list[str]]:
    """The same, locked by hand, with no share entered."""
    served[0].text("lock", "homelab")
    return served


def lines(*shares: str) -> str:
    return "".join(share + "\n" for share in shares)


def test_one_person_with_enough_shares_opens_it(locked: tuple[House, list[str]]) -> None:
    house, shares = locked
    assert house.text("unlock", "homelab", stdin=lines(*shares[:2])) == "homelab is open\n"
    assert house.json("status")["keyrings"]["homelab"]["held"] is False


def test_people_come_one_after_another_and_see_the_progress(
    locked: tuple[House, list[str]],
) -> None:
    house, shares = locked
    first = house.kluis("unlock", "homelab", stdin=lines(shares[2]))
    assert first.code == 2
    assert "family: 1 of 2 shares" in first.err
    assert (
        "homelab is still locked; it would open with disk, or 1 more share of family" in first.out
    )
    assert house.anchors()["family"]["seen"] == "1 of 2 shares entered"
    second = house.json("unlock", "homelab", stdin=lines(shares[0]))
    assert second["homelab"]["state"] == "open"


def test_blank_lines_capitals_and_windows_line_ends_do_no_harm(
    locked: tuple[House, list[str]],
) -> None:
    house, shares = locked
    typed = f"\n\r\n  {shares[0].upper()}\r\n\n{shares[1].replace(' ', '   ')}"
    assert house.text("unlock", "homelab", stdin=typed) == "homelab is open\n"


def test_shares_typed_at_a_terminal_are_not_shown(locked: tuple[House, list[str]]) -> None:
    house, shares = locked
    terminal = Terminal(house, "unlock", "homelab")
    terminal.expect("share for homelab: ")
    terminal.type(shares[0])
    terminal.expect("family: 1 of 2 shares")
    terminal.expect("share for homelab: ")
    terminal.type(shares[1])
    terminal.expect("homelab is open")
    assert terminal.end() == 0
    assert_no_share(terminal.shown, shares)


def test_a_typing_slip_at_a_terminal_is_told_at_once_and_the_share_typed_again(
    locked: tuple[House, list[str]],
) -> None:
    house, shares = locked
    terminal = Terminal(house, "unlock", "homelab")
    terminal.expect("share for homelab: ")
    words = shares[0].split()
    terminal.type(" ".join([*words[:-1], "xylophone"]))
    terminal.expect("not taken: word 33 is not in the word list")
    for share in shares[:2]:
        terminal.expect("share for homelab: ")
        terminal.type(share)
    terminal.expect("homelab is open")
    assert terminal.end() == 0
    assert_no_share(terminal.shown, shares)


@pytest.mark.parametrize("typed", ["\n", "\x04"])
def test_an_empty_line_or_the_end_of_input_leaves_the_prompt(typed: str, tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    with house.serve():
        house.key.unlink()
        house.text("lock", "homelab")
        terminal = Terminal(house, "unlock", "homelab")
        terminal.expect("share for homelab: ")
        terminal.write(typed)
        terminal.expect("homelab is still locked")
        assert terminal.end() == 2


def assert_no_share(shown: str, shares: list[str]) -> None:
    for share in shares:
        three = [" ".join(share.split()[i : i + 2]) for i in range(3, 31)]
        assert not [words for words in three if words in shown]


SLIPS: dict[str, tuple[Callable[[str], str], str]] = {
    "a mistyped word": (lambda s: s.replace(s.split()[6], "zzzzz", 1), "word 7 is not"),
    "too few words": (lambda s: " ".join(s.split()[:30]), "30 words"),
    "two words swapped": (lambda s: " ".join(swapped(s.split())), "checksum"),
    "a share of another set": (lambda s: FOREIGN, "of no set of homelab"),
    "a repeated share": (lambda s: lines(s, s), "was entered already"),
    "no share at all": (lambda s: "correct horse battery staple", "word 1 is not"),
}


def swapped(words: list[str]) -> list[str]:
    return [*words[:10], words[11], words[10], *words[12:]]


@pytest.mark.parametrize("slip", SLIPS)
def test_a_wrong_share_is_one_error_and_the_right_ones_still_open(
    slip: str, locked: tuple[House, list[str]]
) -> None:
    house, shares = locked
    wrong, words = SLIPS[slip]
    before = house.snapshot()
    done = house.kluis("unlock", "homelab", stdin=wrong(shares[0]))
    said = one_error(done)
    assert words in said[0]
    assert all(said)
    assert_no_share(done.out + done.err, shares)
    assert house.snapshot() == before
    assert house.text("unlock", "homelab", stdin=lines(*shares[1:])) == "homelab is open\n"


def test_a_wrong_share_before_the_right_ones_is_named_and_they_open(
    locked: tuple[House, list[str]],
) -> None:
    house, shares = locked
    done = house.kluis("unlock", "homelab", stdin=lines(FOREIGN, *shares[:2]))
    assert (done.code, done.out) == (0, "homelab is open\n")
    assert "not taken: this share is of no set of homelab" in done.err


def test_a_lock_by_hand_holds_though_the_anchors_would_open_it(
    locked: tuple[House, list[str]],
) -> None:
    house, _ = locked
    found = house.json("status", code=2)["keyrings"]["homelab"]
    assert (found["state"], found["held"]) == ("locked", True)
    assert found["anchors"]["disk"]["seen"] == "not asked: somebody locked the keyring by hand"
    house.text("verify", "homelab", code=2)
    house.json("apply", "--yes")
    house.text("status", code=2)
    shown = house.text("status", code=2)
    assert "homelab: locked by hand" in shown


def test_unlock_without_a_share_asks_the_anchors_again_and_ends_the_hold(
    locked: tuple[House, list[str]],
) -> None:
    house, _ = locked
    assert house.text("unlock", "homelab") == "homelab is open\n"


def test_unlock_by_its_anchors_reads_no_share(locked: tuple[House, list[str]]) -> None:
    house, _ = locked
    terminal = Terminal(house, "unlock", "homelab", "--anchors")
    terminal.expect("homelab is open")
    assert terminal.end() == 0
    assert "share for" not in terminal.shown


def test_a_sighup_does_not_end_a_lock_by_hand_and_a_restart_does(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    with house.serve() as service:
        house.text("lock", "homelab")
        service.send(signal.SIGHUP)
        service.wait_logged('"event": "reloaded"')
        house.text("status", code=2)
    with house.serve_open() as service:
        house.text("status", code=0)


def test_a_keyring_that_is_open_needs_no_share(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.apply()
    with house.serve_open():
        assert house.text("unlock", "homelab") == "homelab is open\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("unlock", "nowhere"), "there is no keyring nowhere"),
        (("lock", "nowhere"), "there is no keyring nowhere"),
        (("unlock", "homelab", "--passphrase", "nobody"), "nobody is no anchor of homelab"),
        (("unlock", "homelab", "--passphrase", "disk"), "disk takes no passphrase"),
    ],
)
def test_what_does_not_exist_can_not_be_unlocked(
    arguments: tuple[str, ...], words: str, locked: tuple[House, list[str]]
) -> None:
    house, _ = locked
    assert words in house.refuses(*arguments, stdin="a long enough passphrase\n")["seen"]


@pytest.mark.parametrize("command", ["unlock", "lock"])
def test_without_a_service_the_error_says_how_to_start_one(command: str, tmp_path: Path) -> None:
    house = House(tmp_path)
    house.apply()
    error = house.refuses(command, "homelab")
    assert (error["class"], error["next"]) == ("NotRunning", "kluis serve starts it")

"""Paper shares: what a person may get wrong, and what a forger may try."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shamir_mnemonic import Share
from shamir_mnemonic.wordlist import WORDLIST

from kluis.errors import (
    ForeignShare,
    RepeatedShare,
    ShareError,
    UnknownWord,
    WrongChecksum,
    WrongShares,
    WrongWordCount,
)
from kluis.keyring import paper
from kluis.keyring.paper import Issued, PaperTray
from kluis.keyring.tree import PeopleLeaf
from kluis.secret import Secret

SECRET = Secret(bytes(range(32)))
ISSUED = paper.issue("family", SECRET, 3, 5)


def forged(mnemonic: str, **changes: object) -> str:
    """A share with a right checksum that says something else."""
    return str(replace(Share.from_mnemonic(mnemonic), **changes).mnemonic())


def tray_with(*lines: str, issued: Issued = ISSUED) -> PaperTray:
    tray = PaperTray(issued.leaf)
    for line in lines:
        tray.add(paper.read(line))
    return tray


@pytest.mark.parametrize(("threshold", "shares"), [(1, 1), (2, 2), (2, 3), (3, 5), (16, 16)])
def test_enough_shares_give_the_secret(threshold: int, shares: int) -> None:
    issued = paper.issue("family", SECRET, threshold, shares)
    assert issued.leaf == PeopleLeaf("family", threshold, shares, issued.leaf.identifier)
    assert [len(m.split()) for m in issued.mnemonics] == [paper.WORDS] * shares
    tray = PaperTray(issued.leaf)
    assert tray.threshold == threshold
    for entered, line in enumerate(issued.mnemonics[-threshold:], 1):
        tray.add(paper.read(line))
        assert (tray.entered, tray.missing) == (entered, threshold - entered)
    assert tray.secret() == SECRET


def test_more_shares_than_needed_are_welcome() -> None:
    tray = tray_with(*ISSUED.mnemonics)
    assert (tray.entered, tray.missing) == (5, 0)
    assert tray.secret() == SECRET


def test_a_share_may_be_typed_in_capitals_and_with_many_spaces() -> None:
    line = "  " + ISSUED.mnemonics[0].upper().replace(" ", " \t ") + "\n"
    assert paper.read(line) == paper.read(ISSUED.mnemonics[0])


@pytest.mark.parametrize(("threshold", "shares"), [(0, 1), (2, 1), (1, 2), (2, 17)])
def test_what_slip_39_does_not_have_is_not_issued(threshold: int, shares: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        paper.issue("family", SECRET, threshold, shares)


@pytest.mark.parametrize("position", [1, 2, 17, 33])
def test_a_mistyped_word_is_named_by_its_place(position: int) -> None:
    words = ISSUED.mnemonics[0].split()
    words[position - 1] += "q"
    with pytest.raises(UnknownWord) as raised:
        paper.read(" ".join(words))
    assert raised.value.position == position


def test_a_slip_of_the_finger_is_shown_with_the_word_meant() -> None:
    words = ["acadmic", *ISSUED.mnemonics[0].split()[1:]]
    with pytest.raises(UnknownWord) as raised:
        paper.read(" ".join(words))
    assert "'academic'" in raised.value.seen


def test_a_password_typed_by_mistake_is_not_shown() -> None:
    with pytest.raises(UnknownWord) as raised:
        paper.read("Tr0ub4dor&3")
    assert "tr0ub" not in f"{raised.value.seen} {raised.value.means}".lower()


@given(st.integers(0, 31))
def test_two_words_swapped_break_the_checksum(first: int) -> None:
    words = ISSUED.mnemonics[0].split()
    if words[first] != words[first + 1]:
        words[first], words[first + 1] = words[first + 1], words[first]
        with pytest.raises(WrongChecksum):
            paper.read(" ".join(words))


@given(st.integers(0, 32), st.sampled_from(WORDLIST))
def test_one_other_word_breaks_the_checksum(position: int, word: str) -> None:
    words = ISSUED.mnemonics[0].split()
    if words[position] != word:
        words[position] = word
        with pytest.raises(WrongChecksum):
            paper.read(" ".join(words))


@pytest.mark.parametrize("count", [0, 1, 20, 32])
def test_too_few_words_are_counted(count: int) -> None:
    with pytest.raises(WrongWordCount) as raised:
        paper.read(" ".join(ISSUED.mnemonics[0].split()[:count]))
    assert str(count) in raised.value.seen


@given(st.text(max_size=400) | st.lists(st.sampled_from(WORDLIST), max_size=40).map(" ".join))
def test_a_random_line_is_refused_and_nothing_else(line: str) -> None:
    with pytest.raises(ShareError) as raised:
        paper.read(line)
    assert raised.value.seen.isprintable()


@pytest.mark.parametrize("line", ["x" * 10_000_000, "academic " * 1_000_000, "\ud800", "\0"])
def test_a_hostile_line_is_refused_at_once(line: str) -> None:
    started = time.thread_time()
    with pytest.raises(ShareError):
        paper.read(line)
    assert time.thread_time() - started < 10.0


def test_a_share_of_another_set_stays_out() -> None:
    other = paper.issue("family", SECRET, 3, 5)
    assert not PaperTray(ISSUED.leaf).belongs(paper.read(other.mnemonics[0]))
    with pytest.raises(ForeignShare):
        tray_with(ISSUED.mnemonics[0], other.mnemonics[1])


@pytest.mark.parametrize("changes", [{"member_threshold": 2}, {"index": 5}, {"identifier": 0}])
def test_a_share_that_says_another_set_stays_out(changes: dict[str, int]) -> None:
    share = paper.read(forged(ISSUED.mnemonics[0], **changes))
    with pytest.raises(ForeignShare):
        PaperTray(PeopleLeaf("family", 3, 5, ISSUED.leaf.identifier or 1)).add(share)


@pytest.mark.parametrize(
    "changes",
    [
        {"iteration_exponent": 15},
        {"extendable": False},
        {"group_count": 2},
        {"group_index": 1},
        {"group_threshold": 2, "group_count": 2},
    ],
)
def test_a_share_that_kluis_never_prints_is_refused_before_any_work(
    changes: dict[str, object],
) -> None:
    with pytest.raises(ForeignShare):
        paper.read(forged(ISSUED.mnemonics[0], **changes))


def test_the_same_share_counts_once() -> None:
    tray = tray_with(ISSUED.mnemonics[0])
    with pytest.raises(RepeatedShare):
        tray.add(paper.read(ISSUED.mnemonics[0]))
    assert tray.entered == 1


def test_too_few_shares_give_nothing() -> None:
    tray = tray_with(*ISSUED.mnemonics[:2])
    assert tray.missing == 1
    with pytest.raises(WrongShares):
        tray.secret()


def test_a_forged_share_does_not_block_the_good_ones() -> None:
    bad = forged(ISSUED.mnemonics[0], value=bytes(32))
    tray = tray_with(bad, *ISSUED.mnemonics[1:3])
    assert tray.missing == 0
    with pytest.raises(WrongShares):
        tray.secret()
    tray.add(paper.read(ISSUED.mnemonics[3]))
    assert tray.secret() == SECRET


def test_a_forged_share_of_the_same_person_does_not_block_the_good_one() -> None:
    bad = forged(ISSUED.mnemonics[0], value=bytes(32))
    tray = tray_with(bad, *ISSUED.mnemonics[:3])
    assert tray.entered == 3
    assert tray.secret() == SECRET


def test_an_old_set_of_the_same_number_does_not_block_the_new_one() -> None:
    old = paper.issue("family", Secret(bytes(32)), 3, 5)
    lines = [forged(m, identifier=ISSUED.leaf.identifier) for m in old.mnemonics[:3]]
    tray = tray_with(*lines)
    assert tray.secret() == Secret(bytes(32))  # it fits; that it opens nothing, the body decides
    for line in ISSUED.mnemonics[:3]:
        tray.add(paper.read(line))
    assert tray.secret() == SECRET


def test_a_wrong_paper_of_one_person_does_not_block_the_right_one() -> None:
    issued = paper.issue("safe", SECRET, 1, 1)
    tray = tray_with(forged(issued.mnemonics[0], value=bytes(32)), issued=issued)
    assert tray.secret() != SECRET
    tray.add(paper.read(issued.mnemonics[0]))
    assert tray.secret() == SECRET


def test_the_work_that_forged_shares_can_cause_is_bounded() -> None:
    issued = paper.issue("family", SECRET, 8, 16)
    tray = PaperTray(issued.leaf)
    lines = [forged(m, value=bytes([n]) * 32) for n in range(2) for m in issued.mnemonics]
    for line in lines:
        tray.add(paper.read(line))
    with pytest.raises(WrongShares):
        tray.add(paper.read(issued.mnemonics[0]))
    started = time.thread_time()
    with pytest.raises(WrongShares):
        tray.secret()
    assert time.thread_time() - started < 30.0
    tray.clear()
    assert (tray.entered, tray.missing) == (0, 8)

"""Anchors in words."""

from __future__ import annotations

import pytest

from kluis.keyring import words

PEOPLE = {"family": (3, 5), "anna": (1, 1), "board": (2, 2), "club": (4, 4)}


@pytest.mark.parametrize(
    ("name", "opens", "lost"),
    [
        ("disk", "disk", "disk"),
        ("family", "3 of the 5 shares of family", "3 of the 5 shares of family"),
        ("anna", "the one share of anna", "the one share of anna"),
        ("board", "both shares of board", "1 of the 2 shares of board"),
        ("club", "all 4 shares of club", "1 of the 4 shares of club"),
    ],
)
def test_people_open_and_are_lost_by_their_shares(name: str, opens: str, lost: str) -> None:
    assert words.opening(name, PEOPLE) == opens
    assert words.losing(name, PEOPLE) == lost


def test_parts_are_joined_as_a_person_would() -> None:
    assert words.joined(["a"]) == "a"
    assert words.joined(["a", "b"]) == "a and b"
    assert words.joined(["a", "b", "c"], "or") == "a, b or c"
    assert words.together(["anna", "disk"], PEOPLE) == "disk and the one share of anna"
    assert (words.plural(1, "share"), words.plural(2, "share")) == ("1 share", "2 shares")


def test_ways_that_take_the_fewest_things_come_first_and_of_many_the_rest_is_counted() -> None:
    sets = [("family",), ("b", "c"), ("disk",)]
    assert words.ways(sets, PEOPLE) == "disk; b and c; 3 of the 5 shares of family"
    many = [(f"a{n}",) for n in range(10)]
    assert words.ways(many, {}) == "a0; a1; a2; a3; a4; a5; a6; a7; and 2 more"

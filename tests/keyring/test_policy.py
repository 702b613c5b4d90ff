"""The ``opens`` expression: what it says, how it prints, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import PolicyError
from kluis.keyring import policy
from kluis.keyring.policy import AnyOf, Name, Policy, Threshold
from tests.keyring.strategies import policies

A, B, C, D = Name("a"), Name("b"), Name("c"), Name("d")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a", A),
        ("a or b", AnyOf((A, B))),
        ("a and b", Threshold(2, (A, B))),
        ("2 of (a, b, c)", Threshold(2, (A, B, C))),
        ("a or b and c", AnyOf((A, Threshold(2, (B, C))))),
        ("(a or b) and c", Threshold(2, (AnyOf((A, B)), C))),
        ("a or (b or c)", AnyOf((A, B, C))),
        ("a and (b and c)", Threshold(3, (A, B, C))),
        ("1 of (a, b, c)", AnyOf((A, B, C))),
        ("3 of (a, b, c)", Threshold(3, (A, B, C))),
        ("2 of (a, b, c or d)", Threshold(2, (A, B, AnyOf((C, D))))),
        ("2 of (a, 2 of (b, c, d), e)", Threshold(2, (A, Threshold(2, (B, C, D)), Name("e")))),
        ("  a\n or\tb ", AnyOf((A, B))),
        ("((a))", A),
        ("or-1 and of-2", Threshold(2, (Name("or-1"), Name("of-2")))),
    ],
)
def test_an_expression_says_a_policy(expression: str, expected: Policy) -> None:
    assert policy.parse(expression) == expected


@given(policies())
def test_what_is_shown_parses_to_the_same_policy(rule: Policy) -> None:
    assert policy.parse(policy.show(rule)) == rule


@given(policies())
def test_what_is_shown_is_the_only_form(rule: Policy) -> None:
    shown = policy.show(rule)
    assert policy.show(policy.parse(shown)) == shown


WORDS = ["a", "b", "disk-1", "or", "and", "of", "(", ")", ",", "2", "0", "33", " ", "\n", "é", "A"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)))
def test_the_parser_raises_nothing_but_policy_errors(text: str) -> None:
    error = refusal(text)
    if error is None:
        rule = policy.parse(text)
        assert policy.parse(policy.show(rule)) == rule
    else:
        assert 0 <= error.position <= len(text)
        assert error.seen.isprintable()


def refusal(text: str) -> PolicyError | None:
    try:
        policy.parse(text)
    except PolicyError as error:
        return error
    return None


@pytest.mark.parametrize(
    "text", ["(" * 4096, "1 of (" * 600, "a or " * 800, "9" * 4096, "(" * 10_000_000, "\ud800"]
)
def test_hostile_expressions_end_in_an_error_and_not_in_the_stack(text: str) -> None:
    with pytest.raises(PolicyError):
        policy.parse(text)


@pytest.mark.parametrize("template", ["2 of ({}, x{n}, y{n})", "x{n} and (y{n} or {})", "({})"])
def test_a_policy_of_eight_groups_is_read_and_one_of_nine_is_not(template: str) -> None:
    groups = 2 if "or" in template else 1
    expression = "a"
    for n in range(8 // groups):
        expression = template.format(expression, n=n)
    assert policy.depth(policy.parse(expression)) in {0, 8}
    with pytest.raises(PolicyError):
        policy.parse(template.format(expression, n=9))


def test_an_error_shows_the_place_on_one_line() -> None:
    with pytest.raises(PolicyError) as raised:
        policy.parse("disk or\n(nas and \x1b[2J cloud")
    assert raised.value.position == 17
    assert "(nas and ▸ [2J cloud" in raised.value.seen
    assert raised.value.seen.isprintable()


def test_a_name_of_64_characters_is_not_two_names() -> None:
    with pytest.raises(PolicyError) as raised:
        policy.parse("a" * 63 + "or b")
    assert raised.value.position == 0


def test_names_are_told_apart_from_names_they_begin() -> None:
    with pytest.raises(PolicyError) as raised:
        policy.parse("disk-2 or disk or disk")
    assert raised.value.position == 18


def test_an_unknown_anchor_is_named_with_its_place_and_the_known_ones() -> None:
    expression = "disk or nas2 or nas"
    with pytest.raises(PolicyError) as raised:
        policy.check_known(expression, policy.parse(expression), ["nas", "disk"])
    assert raised.value.position == 8
    assert raised.value.means == "the anchors are: disk, nas"
    policy.check_known("disk", policy.parse("disk"), ["disk"])


def test_the_longest_policy_in_normal_form_still_fits_an_expression() -> None:
    names = [f"{'n' * 61}{i:02}" for i in range(32)]
    expression = names[0]
    for first, second in zip(names[1:16:2], names[2:17:2], strict=True):
        expression = f"2 of ({expression}, {first}, {second})"
    expression = f"{expression[:-1]}, {', '.join(names[17:])})"
    assert len(policy.show(policy.parse(expression))) < policy.MAX_EXPRESSION_CHARS

"""What a keyring is warned of: the codes, whom they name, and that the claims hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import UsageError
from kluis.keyring import policy, trust
from kluis.keyring.policy import Policy
from kluis.service.explain import explaining
from kluis.service.explain.cautions import harmless
from kluis.service.explain.explaining import Explained
from kluis.service.explain.supplies import Home
from tests.keyring.strategies import policies
from tests.service.installations import home, people, settings, static, transit

SELF = "https://bao.example:8200"


def explained(rule: str, **anchors: dict[str, object]) -> Explained:
    """A keyring k that unseals the server at SELF; anchors that are not given are static."""
    known = {name: static() for name in policy.names(policy.parse(rule))} | anchors
    return explaining.explain(
        [home(rules={"k": rule}, anchors=known, clients={"bletchley": (["k"], SELF)})], "k"
    )


@pytest.mark.parametrize(
    ("clusters", "warned"),
    [((None, None), True), (("c-1", None), True), (("c-1", "c-2"), True), (("c-1", "c-1"), False)],
)
def test_two_servers_with_the_same_shares_are_warned_of_unless_they_are_one_cluster(
    clusters: tuple[str | None, str | None], warned: bool
) -> None:
    first, second = ({"addresses": SELF, "cluster_id": cluster} for cluster in clusters)
    servers = {
        "a": {**first, "unseal": "k/x"},
        "b": {**second, "recovery": "k/x"},
        "c": {"addresses": SELF, "unseal": "k/y", "recovery": "k/y"},
    }
    anchors = {"p": static(), "q": static()}
    found = explaining.explain([home(rules={"k": "p or q"}, anchors=anchors, servers=servers)], "k")
    assert [warning.seen for warning in found.warnings if warning.code == "same-shares"] == (
        ["a and b are declared with the same shares, k/x"] if warned else []
    )


def codes(found: Explained) -> list[str]:
    return [
        " ".join([warning.code, *([warning.domain] if warning.domain else []), *warning.anchors])
        for warning in found.warnings
    ]


@pytest.mark.parametrize(
    ("rule", "anchors", "expected"),
    [
        ("a", {}, ["single-loss a", "single-theft a"]),
        ("a and b", {}, ["single-loss a", "single-loss b"]),
        ("a or b", {}, ["single-theft a", "single-theft b"]),
        ("2 of (a, b, c)", {}, []),
        # people hold their shares apart: one theft or one loss is not enough
        ("family", {"family": people(3, 5)}, []),
        ("board", {"board": people(2, 2)}, ["single-loss board"]),
        ("anna", {"anna": people(1, 1)}, ["single-loss anna", "single-theft anna"]),
        # but not if all the papers lie in one place
        (
            "family",
            {"family": people(3, 5, domain="house")},
            ["domain-loss house family", "domain-theft house family"],
        ),
        (
            "2 of (a, b, c)",
            {"a": static(domain="house"), "b": static(domain="house")},
            ["domain-loss house a b", "domain-theft house a b"],
        ),
        (
            "2 of (a, b, c) or family",
            {"a": static(domain="house"), "b": static(domain="house"), "family": people(2, 3)},
            ["domain-theft house a b"],
        ),
        (
            "(a or b) and (c or d)",
            {"a": static(domain="house"), "b": static(domain="house"), "c": static(domain="x")},
            ["domain-loss house a b"],
        ),
        # what follows from a single point in the domain is not said twice
        (
            "a or b and c",
            {"a": static(domain="house"), "b": static(domain="house"), "c": static(domain="house")},
            ["single-theft a", "domain-loss house a b c"],
        ),
        ("a and bao", {"bao": transit(SELF)}, ["single-loss a", "single-loss bao", "circle bao"]),
        (
            "family or bao",
            {"bao": transit(SELF), "family": people(2, 3)},
            ["single-theft bao", "cold-start bao"],
        ),
    ],
)
def test_a_rule_is_warned_of(
    rule: str, anchors: dict[str, dict[str, object]], expected: list[str]
) -> None:
    assert codes(explained(rule, **anchors)) == expected


@given(policies(), st.data())
def test_every_warning_holds_and_none_is_missing(rule: Policy, data: st.DataObject) -> None:
    names = list(policy.names(rule))
    domain_of = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(["x", "y"])))
    found = explained(
        policy.show(rule), **{name: static(domain=domain) for name, domain in domain_of.items()}
    )
    everything = set(names)
    for code in ("single-loss", "domain-loss"):
        for warning in found.warnings:
            if warning.code == code:
                assert not trust.opens_with(rule, everything - set(warning.anchors))
    for code in ("single-theft", "domain-theft"):
        for warning in found.warnings:
            if warning.code == code:
                assert trust.opens_with(rule, set(warning.anchors))
    losses = {w.anchors[0] for w in found.warnings if w.code == "single-loss"}
    thefts = {w.anchors[0] for w in found.warnings if w.code == "single-theft"}
    assert losses == {n for n in names if not trust.opens_with(rule, everything - {n})}
    assert thefts == {n for n in names if trust.opens_with(rule, {n})}
    for domain in set(domain_of.values()):
        lying = {name for name in names if domain_of.get(name) == domain}
        said = {warning.code for warning in found.warnings if warning.domain == domain}
        locks, opens = not trust.opens_with(rule, everything - lying), trust.opens_with(rule, lying)
        assert ("domain-loss" in said) == (locks and not lying & losses)
        assert ("domain-theft" in said) == (opens and not lying & thefts)


def test_a_circle_says_its_way_and_what_to_do() -> None:
    (*_, warning) = explained("bao", bao=transit(SELF)).warnings
    assert warning.seen == "after an outage of everything k never comes back"
    assert warning.means == (
        "bao is served by bletchley (https://bao.example:8200), which works only while k is open"
    )
    assert "paper" in warning.next_step


def test_a_circle_across_two_installations_says_every_step() -> None:
    near = home(
        rules={"k": "far"},
        anchors={"far": transit("https://colossus:8200")},
        clients={"bletchley": (["k"], SELF)},
    )
    other = home(
        "/other.toml",
        rules={"o": "back or disk"},
        anchors={"back": transit(SELF), "disk": static()},
        clients={"colossus": (["o"], "https://colossus:8200")},
    )
    found = explaining.explain([near, other], "k")
    assert "circle" not in {warning.code for warning in found.warnings}
    assert harmless("k", found.cold, {}) == [
        "A circle: far is served by colossus of /other.toml (https://colossus:8200), which works"
        " only while o of /other.toml is open; o of /other.toml's back is served by bletchley"
        " (https://bao.example:8200), which works only while k is open. It does no harm as long as"
        " o of /other.toml opens in another way."
    ]
    locked = home(
        "/other.toml",
        rules={"o": "back"},
        anchors={"back": transit(SELF)},
        clients={"colossus": (["o"], "https://colossus:8200")},
    )
    assert "circle" in {w.code for w in explaining.explain([near, locked], "k").warnings}


def test_a_circle_with_another_way_is_told_without_a_warning() -> None:
    found = explained("bao or 2 of (a, b, c)", bao=transit(SELF))
    assert codes(found) == ["single-theft bao"]
    (note,) = harmless("k", found.cold, found.people)
    assert note.endswith("as long as k opens in another way: a and b; a and c; b and c.")


def test_a_server_in_a_circle_of_others_is_named_too() -> None:
    one = home(
        rules={"k": "far or family", "o": "near"},
        anchors={
            "far": transit("https://colossus:8200"),
            "near": transit("https://colossus:8200"),
            "family": people(2, 3),
        },
        clients={"colossus": (["o"], "https://colossus:8200")},
    )
    found = explaining.explain([one], "k")
    (*_, warning) = found.warnings
    assert warning.code == "cold-start"
    assert warning.means.endswith("while o is open; o never comes back")
    assert harmless("k", found.cold, found.people) == []
    paper = home(
        rules={"k": "far", "o": "family"},
        anchors={"far": transit("https://colossus:8200"), "family": people(2, 3)},
        clients={"colossus": (["o"], "https://colossus:8200")},
    )
    (*_, warning) = explaining.explain([paper], "k").warnings
    assert warning.means.endswith("while o is open; o waits for people")


def test_the_json_is_plain_and_says_everything() -> None:
    anchors: dict[str, dict[str, object]] = {
        "bao": transit(SELF),
        "family": people(2, 3, domain="house"),
    }
    found = explained("bao or family", **anchors)
    known = settings({"k": "bao or family"}, anchors).anchors
    said = explaining.as_json(found, known)
    assert json.loads(json.dumps(said)) == said
    assert said == {
        "opens": "bao or family",
        "anchors": {
            "bao": {"kind": "transit", "domain": None},
            "family": {"kind": "people", "domain": "house", "threshold": 2, "shares": 3},
        },
        "quorums": [["bao"], ["family"]],
        "cuts": [["bao", "family"]],
        "may_be_lost": 1,
        "domains": {"house": {"anchors": ["family"], "loss_locks": False, "theft_opens": True}},
        "places": {"may_be_lost": 1, "to_steal": 1},
        "cold_start": "people",
        "circles": [
            {
                "anchor": "bao",
                "closed": True,
                "helps": "never",
                "hops": [
                    {
                        "keyring": "k",
                        "anchor": "bao",
                        "address": SELF,
                        "server": "bletchley",
                        "needs": "k",
                    }
                ],
                "words": f"bao is served by bletchley ({SELF}), which works only while k is open",
            }
        ],
        "warnings": [
            {
                "code": warning.code,
                "anchors": [*warning.anchors],
                "domain": warning.domain,
                "seen": warning.seen,
                "means": warning.means,
                "next": warning.next_step,
            }
            for warning in found.warnings
        ],
    }
    assert codes(found) == ["single-theft bao", "domain-theft house family", "cold-start bao"]


def test_without_a_name_every_keyring_is_meant() -> None:
    two = Home("", settings({"k": "a", "o": "a"}, {"a": static()})).settings
    assert explaining.chosen(two, None) == ("k", "o")
    assert explaining.chosen(two, "o") == ("o",)
    with pytest.raises(UsageError, match="there is no keyring x"):
        explaining.chosen(two, "x")
    with pytest.raises(UsageError, match="declares no keyring"):
        explaining.chosen(settings({}, {}), None)

"""The tree of a document and the secrets of its leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import DocumentError
from kluis.keyring import crypto, dealing, policy, shamir, tree
from kluis.keyring.policy import Policy
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.keyring.strategies import policies, tree_of

PEOPLE = tree.PeopleLeaf("family", 2, 3, 7)


def test_a_path_reads_as_in_the_format() -> None:
    assert tree.show_path(()) == "/"
    assert tree.show_path((0, 12)) == "/0/12"


@given(policies())
def test_a_tree_says_its_policy_and_reads_back(rule: Policy) -> None:
    node = tree_of(rule)
    assert tree.to_policy(node) == rule
    assert tree.from_json(tree.to_json(node)) == node
    assert [leaf.name for _, leaf in tree.leaves(node)] == list(policy.names(rule))


@given(policies(), st.data())
def test_a_leaf_is_replaced_and_nothing_else(rule: Policy, data: st.DataObject) -> None:
    node = tree_of(rule)
    before = dict(tree.leaves(node))
    path = data.draw(st.sampled_from(sorted(before)))
    leaf = tree.AnchorLeaf("new", "fake", {"x": 1})
    after = tree.replace_leaf(node, path, leaf)
    assert dict(tree.leaves(after)) == {**before, path: leaf}
    assert tree.at_leaf(after, path) is leaf
    assert dict(tree.leaves(node)) == before
    assert tree.from_json(tree.to_json(after)) == after


def test_a_path_without_a_leaf_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        tree.at_leaf(PEOPLE, (0,))


@pytest.mark.parametrize(
    "node", [PEOPLE, tree.AnchorLeaf("a", "fake"), tree.AnchorLeaf("a", "f", {})]
)
def test_every_kind_of_leaf_reads_back(node: tree.Node) -> None:
    assert tree.from_json(tree.to_json(node)) == node


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda i: (
            st.lists(i)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "any",
                        "of",
                        "threshold",
                        "anchor",
                        "kind",
                        "sealed",
                        "people",
                        "shares",
                        "identifier",
                        "x",
                    ]
                ),
                i,
            )
        ),
    )
)
def test_reading_a_tree_raises_nothing_but_document_errors(value: JSON) -> None:
    try:
        node = tree.from_json(value)
    except DocumentError:
        return
    assert tree.to_json(node) == value


ROOT = Secret(bytes(range(32)))


def at_names(node: tree.Node, dealt: dict[tree.Path, Secret]) -> dict[str, Secret]:
    return dealing.by_name(node, dealt)


def test_the_children_of_any_have_the_secret_of_their_parent() -> None:
    node = tree_of(policy.parse("a or b or c"))
    assert list(dealing.deal(node, ROOT).values()) == [ROOT] * 3


def test_the_children_of_a_threshold_have_shares_counted_from_one() -> None:
    node = tree_of(policy.parse("2 of (a, b, c)"))
    dealt = dealing.deal(node, ROOT)
    shares = {path[0] + 1: secret.reveal() for path, secret in dealt.items()}
    assert shamir.interpolate({x: shares[x] for x in (1, 3)}) == ROOT.reveal()
    assert len(set(shares.values()) | {ROOT.reveal()}) == 4


def test_wiping_one_leaf_leaves_the_root_and_the_others_alone() -> None:
    node = tree_of(policy.parse("a or b"))
    root = Secret(ROOT.reveal())
    dealt = dealing.deal(node, root)
    dealt[0,].wipe()
    assert root == ROOT
    assert dealt[1,] == ROOT
    found = dealing.known(node, root, {(1,): dealt[1,]})
    found[0,].wipe()
    found[1,].wipe()
    assert root == ROOT
    assert dealt[1,] == ROOT


@given(policies(), st.data())
def test_what_is_known_is_right_and_never_depends_on_luck(
    rule: Policy, data: st.DataObject
) -> None:
    node = tree_of(rule)
    dealt = dealing.deal(node, ROOT)
    machine = data.draw(st.sets(st.sampled_from(sorted(dealt))))
    found = dealing.known(node, ROOT, {path: dealt[path] for path in machine})
    assert found == {path: dealt[path] for path in found}
    assert machine <= set(found)
    assert dealing.known(node, ROOT, dealt) == dealt


def test_the_secret_of_people_follows_through_groups_beside_them() -> None:
    node = tree_of(policy.parse("2 of (a and b, c or d, family)"), {"family": (2, 3)})
    dealt = dealing.deal(node, ROOT)
    people = next(path for path, leaf in tree.leaves(node) if leaf.name == "family")
    for known in [{"a", "b"}, {"c"}, {"d"}]:
        some = {p: dealt[p] for p, leaf in tree.leaves(node) if leaf.name in known}
        assert dealing.known(node, ROOT, some)[people] == dealt[people]
    lonely = {p: dealt[p] for p, leaf in tree.leaves(node) if leaf.name == "a"}
    assert people not in dealing.known(node, ROOT, lonely)


def test_new_members_get_shares_and_the_old_ones_keep_theirs() -> None:
    old = tree_of(policy.parse("2 of (a, b, c)"))
    kept = at_names(old, dealing.deal(old, ROOT))
    new = tree_of(policy.parse("2 of (a, b, c, d)"))
    dealt = at_names(new, dealing.deal(new, ROOT, kept))
    assert {name: dealt[name] for name in "abc"} == kept
    points = {1: dealt["a"].reveal(), 4: dealt["d"].reveal()}
    assert shamir.interpolate(points) == ROOT.reveal()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2 of (a, b, c)", "2 of (b, a, c)"),  # other places
        ("2 of (a, b, c)", "3 of (a, b, c, d)"),  # two would open a threshold of three
        ("a or b or c", "2 of (a, b, c)"),  # one would open a threshold of two
        ("3 of (a, b, c, d)", "2 of (a, b, c, d)"),
    ],
)
def test_shares_are_dealt_anew_when_the_old_ones_would_be_wrong(old: str, new: str) -> None:
    before = tree_of(policy.parse(old))
    kept = at_names(before, dealing.deal(before, ROOT))
    after = tree_of(policy.parse(new))
    dealt = at_names(after, dealing.deal(after, ROOT, kept))
    assert all(dealt[name] != kept[name] for name in kept)


def test_shares_are_dealt_anew_under_a_new_root_secret() -> None:
    node = tree_of(policy.parse("2 of (a, b, c)"))
    kept = at_names(node, dealing.deal(node, ROOT))
    dealt = at_names(node, dealing.deal(node, Secret.random(), kept))
    assert all(dealt[name] != kept[name] for name in kept)


def test_too_few_old_shares_prove_no_polynomial() -> None:
    node = tree_of(policy.parse("2 of (a, b, c)"))
    kept = {"a": at_names(node, dealing.deal(node, ROOT))["a"]}
    dealt = at_names(node, dealing.deal(node, ROOT, kept))
    assert dealt["a"] != kept["a"]


def test_the_random_bytes_are_those_that_were_given() -> None:
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return crypto.random_bytes(count)

    dealing.deal(tree_of(policy.parse("3 of (a, b, c)")), ROOT, random_bytes=random_bytes)
    assert asked == [32, 32]

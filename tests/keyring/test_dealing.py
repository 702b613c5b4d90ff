"""The secrets of the leaves: who may open has enough, who may not has nothing, paper stays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

import pytest
from hypothesis import given

from kluis.keyring import dealing, policy, shamir, tree, trust
from kluis.keyring.policy import Policy
from kluis.keyring.quorum import Quorum
from kluis.secret import Secret
from tests.keyring.strategies import policies, tree_of
from tests.keyring.test_trust import subsets

Secrets = Mapping[str, Secret]


def node_of(expression: str) -> tree.Node:
    return tree_of(policy.parse(expression))


def deal(node: tree.Node, root: Secret, kept: Secrets | None = None) -> dict[str, Secret]:
    return dealing.by_name(node, dealing.deal(node, root, kept))


def give(node: tree.Node, secrets: Secrets, names: Collection[str], root: Secret) -> bool:
    """Whether these leaves' secrets lead to the root secret."""
    quorum = Quorum(node)
    paths = {leaf.name: path for path, leaf in tree.leaves(node)}
    return any(
        candidate == root
        for name in names
        for candidate in quorum.answer(paths[name], secrets[name])
    )


@given(policies(max_names=6))
def test_just_the_quorums_have_enough(rule: Policy) -> None:
    node, root = tree_of(rule), Secret.random()
    secrets = deal(node, root)
    for names in subsets(sorted(policy.names(rule))):
        assert give(node, secrets, names, root) == trust.opens_with(rule, names)


@given(policies(max_names=4), policies(max_names=5))
def test_just_the_quorums_have_enough_also_after_the_rule_has_grown(
    old: Policy, new: Policy
) -> None:
    if not all(trust.opens_with(new, set(names)) for names in trust.minimal_quorums(old)):
        return  # it shrinks: then nothing is kept
    root = Secret.random()
    node = tree_of(new)
    secrets = deal(node, root, deal(tree_of(old), root))
    for names in subsets(sorted(policy.names(new))):
        assert give(node, secrets, names, root) == trust.opens_with(new, names)


STAY = [
    ("disk or family", "disk or family or nas", "disk family"),
    ("2 of (a, b, c)", "2 of (a, b, c, d, e)", "a b c"),
    ("a and family", "2 of (a, family, c)", "a family"),
    ("3 of (a, b, c, d)", "3 of (a, b, c, d, e)", "a b c d"),
    ("2 of (a, b, c)", "(2 of (a, b, c)) or d", "a b c"),
    ("(a or family) and b", "2 of (a or family, b, c)", "a family b"),
    ("(a or family) and b", "((a or family) and b) or c", "a family b"),
    ("(2 of (a, b, family)) and d", "2 of (2 of (a, b, family), d, e)", "a b family d"),
    ("(2 of (a, b, family)) and d", "(2 of (a, b, family, c)) and d", "a b family d"),
]
MOVE = [
    ("a and family", "a or family", "a family"),
    ("3 of (a, b, family)", "2 of (a, b, family)", "a b family"),
    ("2 of (a, b, family)", "2 of (family, a, b, c)", "family"),
    ("(a or b) and c", "2 of (a, b, c)", "b c"),
]


@pytest.mark.parametrize(("old", "new", "names"), STAY)
def test_a_rule_that_only_gains_members_leaves_the_others_their_secrets(
    old: str, new: str, names: str
) -> None:
    before, after = grown(old, new)
    assert [name for name in names.split() if before[name] != after[name]] == []


@pytest.mark.parametrize(("old", "new", "names"), MOVE)
def test_a_rule_with_other_places_gives_new_secrets(old: str, new: str, names: str) -> None:
    before, after = grown(old, new)
    assert [name for name in names.split() if before[name] == after[name]] == []


def grown(old: str, new: str) -> tuple[Secrets, Secrets]:
    """The secrets before and after a rule has grown, with what follows without the family."""
    root, old_node = Secret.random(), node_of(old)
    before = dealing.deal(old_node, root)
    machine = {path: before[path] for path, leaf in tree.leaves(old_node) if leaf.name != "family"}
    known = dealing.by_name(old_node, dealing.known(old_node, root, machine))
    return dealing.by_name(old_node, before), deal(node_of(new), root, known)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2 of (a, b, c)", "3 of (a, b, c, d)"),
        ("a or b or c", "2 of (a, b, c)"),
        ("a or b or c or d", "3 of (a, b, c, d)"),
    ],
)
def test_secrets_of_a_lower_threshold_are_never_kept_for_a_higher_one(old: str, new: str) -> None:
    root, node = Secret.random(), node_of(new)
    assert isinstance(node, tree.ThresholdNode)
    secrets = deal(node, root, deal(node_of(old), root))
    shares = {x: secrets[name].reveal() for x, name in enumerate("abcd"[: len(node.of)], 1)}
    for too_few in range(1, node.threshold):  # put together as a thief would, whatever the rule
        for stolen in combinations(shares.items(), too_few):
            assert shamir.interpolate(dict(stolen)) != root.reveal()
    assert shamir.interpolate(shares) == root.reveal()


@given(policies(max_names=6))
def test_what_follows_from_the_machines_is_right(rule: Policy) -> None:
    node, root = tree_of(rule), Secret.random()
    dealt = dealing.deal(node, root)
    paths = [path for path, _ in tree.leaves(node)]
    for chosen in subsets([tree.show_path(path) for path in paths]):
        machine = {path: dealt[path] for path in paths if tree.show_path(path) in chosen}
        found = dealing.known(node, root, machine)
        assert set(machine) <= set(found)
        assert all(dealt[path] == secret for path, secret in found.items())


@pytest.mark.parametrize(
    ("rule", "machines", "follows"),
    [
        ("family", "", True),
        ("disk or family", "", True),
        ("disk and family", "disk", True),
        ("disk and family", "", False),
        ("2 of (disk, family, nas)", "disk", True),
        ("3 of (disk, family, nas)", "disk", False),
        ("(disk or nas) and family", "nas", True),
        ("(2 of (a, b, c)) and family", "a c", True),
        ("(2 of (a, b, c)) and family", "b", False),
    ],
)
def test_the_secret_of_the_people_follows_where_the_tree_says_it(
    rule: str, machines: str, follows: bool
) -> None:
    node, root = node_of(rule), Secret.random()
    dealt = dealing.deal(node, root)
    machine = {
        path: dealt[path] for path, leaf in tree.leaves(node) if leaf.name in machines.split()
    }
    found = dealing.by_name(node, dealing.known(node, root, machine))
    assert ("family" in found) == follows


def test_wiping_one_secret_wipes_no_other() -> None:
    root, node = Secret.random(), node_of("a or b or (c and d)")
    dealt = dealing.deal(node, root)
    known = dealing.known(node, root, dealt)
    copies = [Secret(secret.reveal()) for secret in dealt.values()]
    root.wipe()
    for secret in known.values():
        secret.wipe()
    assert list(dealt.values()) == copies


def test_randomness_comes_from_where_it_is_asked_for() -> None:
    asked: list[int] = []

    def zeros(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    root = Secret.random()
    dealt = dealing.deal(node_of("2 of (a, b, c)"), root, random_bytes=zeros)
    assert asked == [32]
    assert all(secret == root for secret in dealt.values())  # the polynomial is constant then

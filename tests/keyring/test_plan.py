"""What an apply would do: which changes keep the root secret, and which replace it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given

from kluis.errors import ChangeRefused
from kluis.keyring import plan, policy, tree, trust
from kluis.keyring.document import KeyEntry
from kluis.keyring.plan import Plan, PolicyChange, Wanted, WantedClient
from kluis.keyring.policy import Policy
from tests.keyring.strategies import make, policies, tree_of
from tests.keyring.test_trust import subsets

SEAL_CLIENT = WantedClient(("seal",))


def wanted(
    expression: str | Policy,
    people: Mapping[str, tuple[int, int]] | None = None,
    keys: Mapping[str, str] | None = None,
    clients: Mapping[str, WantedClient] | None = None,
) -> Wanted:
    rule = policy.parse(expression) if isinstance(expression, str) else expression
    leaves = {leaf.name: leaf for _, leaf in tree.leaves(tree_of(rule, people))}
    return Wanted(
        "homelab",
        rule,
        leaves,
        {"seal": "transit"} if keys is None else keys,
        {"bletchley": SEAL_CLIENT} if clients is None else clients,
    )


def words(made: Plan) -> str:
    return "; ".join(step.words for step in made.steps)


def test_a_new_keyring_is_made_with_its_keys_clients_and_paper() -> None:
    made = plan.make(None, wanted("disk or family", {"family": (2, 3)}))
    assert made.policy is PolicyChange.NEW
    assert (made.new_keys, made.new_clients) == (("seal",), ("bletchley",))
    assert not made.replaces_root
    assert "print new paper for family" in words(made)
    assert "print its token" in words(made)
    assert not any(step.destroys for step in made.steps)


def test_a_plan_says_who_could_open_and_who_can_what_is_rotated_and_what_is_printed() -> None:
    document = make("disk or nas or family", {"family": (2, 3)}).document
    rule = "disk or 2 of (nas, cloud, family)"
    assert [step.words for step in plan.make(document, wanted(rule, {"family": (2, 3)})).steps] == [
        f"change the rule from 'disk or nas or family' to '{rule}'",
        "until now it opened with: disk; nas; 2 of the 3 shares of family",
        "from now on it opens with: disk; cloud and nas; cloud and 2 of the 3 shares of family;"
        " nas and 2 of the 3 shares of family",
        "replace the root secret; the paper of family opens nothing any more",
        "rotate the key seal",
        "print new paper for family: 3 shares, 2 needed",
    ]


def test_a_rule_that_grows_rotates_nothing_and_says_who_can_open_now() -> None:
    assert [
        step.words for step in plan.make(make("disk").document, wanted("disk or nas")).steps
    ] == [
        "widen the rule from 'disk' to 'disk or nas'; the root secret stays",
        "until now it opened with: disk",
        "from now on it opens with: disk; nas",
    ]


def test_an_anchor_replaced_by_another_of_its_name_opens_as_before_but_not_as_it_was() -> None:
    made = plan.make(make("disk or nas").document, wanted("disk or nas"), reissue=["disk"])
    assert [step.words for step in made.steps] == [
        "replace the anchor disk: as it was, it opens nothing any more",
        "as before, it opens with: disk; nas",
        "replace the root secret",
        "rotate the key seal",
    ]


def test_a_static_key_that_is_rotated_may_be_other_nodes_too() -> None:
    document = make("disk or nas").document
    changed = replace(document, keys={"node": KeyEntry("static-seal", 1, 1)})
    declared = wanted("disk", keys={"node": "static-seal"}, clients={})
    assert (
        "; rotate the key node; other nodes that have the key node too can't unseal what"
        in words(plan.make(changed, declared))
    )


@pytest.mark.parametrize(
    ("imported", "said"),
    [
        (["old"], "the key old stays as it is: who could open the keyring until now may know {}"),
        (["old", "older"], "the keys old and older stay as they are: who could open the keyring"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("opaque", "what was imported"),
        ("unseal-shares", "the shares; kluis server rekey makes new ones"),
    ],
)
def test_a_key_that_can_not_be_rotated_is_named_with_the_keys_that_are(
    kind: str, what: str, imported: list[str], said: str
) -> None:
    document = make("disk or nas").document
    keys = {name: KeyEntry(kind, 1, 1) for name in imported}
    declared = {"seal": "transit", "k8s": "kms"}
    more = {"k8s": KeyEntry("kms", 1, 1)}
    changed = replace(document, keys={**document.keys, **keys, **more})
    made = words(plan.make(changed, wanted("disk", keys=declared)))
    assert "; rotate the keys k8s and seal; " in made
    assert said.format(what) in made
    changed = replace(document, keys=keys)
    assert "; rotate" not in words(plan.make(changed, wanted("disk", keys={}, clients={})))


def test_a_plan_over_a_rule_of_many_sets_stays_short() -> None:
    names = [f"a{n}" for n in range(20)]
    made = words(plan.make(make("a0").document, wanted(f"8 of ({', '.join(names)})")))
    assert "and many more" in made
    assert "; and 37 more" in words(
        plan.make(make("a0").document, wanted(f"2 of ({names[0]}, b, c, d, e, f, g, h, i, j)"))
    )


def test_nothing_is_done_when_nothing_changed() -> None:
    made = plan.make(make("disk or nas").document, wanted("disk or nas"))
    assert made == Plan("homelab", PolicyChange.SAME)
    assert made.empty


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("disk", "disk or nas", PolicyChange.GROWS),
        ("disk and nas", "disk or nas", PolicyChange.GROWS),
        ("disk or nas", "nas or disk", PolicyChange.GROWS),
        ("2 of (a, b, c)", "2 of (a, b, c, d)", PolicyChange.GROWS),
        ("disk or nas", "disk", PolicyChange.SHRINKS),
        ("disk or nas", "disk and nas", PolicyChange.SHRINKS),
        ("2 of (a, b, c)", "3 of (a, b, c)", PolicyChange.SHRINKS),
        ("disk", "nas", PolicyChange.SHRINKS),
    ],
)
def test_the_root_secret_stays_just_while_the_rule_only_grows(
    old: str, new: str, change: PolicyChange
) -> None:
    made = plan.make(make(old).document, wanted(new))
    assert made.policy is change
    assert made.replaces_root == (change is PolicyChange.SHRINKS)
    assert not made.empty


@given(policies(max_names=4), policies(max_names=4))
def test_who_may_no_longer_open_costs_a_new_root_secret(old: Policy, new: Policy) -> None:
    made = plan.make(make(policy.show(old)).document, wanted(new))
    names = sorted({*policy.names(old), *policy.names(new)})
    lost = [s for s in subsets(names) if trust.opens_with(old, s) and not trust.opens_with(new, s)]
    assert made.replaces_root == bool(lost)


def test_an_anchor_of_another_kind_is_another_anchor() -> None:
    document = make("disk or family", {"family": (2, 3)}).document
    for people in ({"family": (3, 3)}, {"family": (2, 4)}, {}, {"family": (2, 3), "disk": (1, 1)}):
        made = plan.make(document, wanted("disk or family", people))
        assert made.policy is PolicyChange.SHRINKS
        assert made.replaced == (("disk",) if "disk" in people else ("family",))
        assert "replace the anchor" in words(made)


def test_paper_is_issued_anew_on_request_and_the_old_one_opens_nothing() -> None:
    document = make("disk or family", {"family": (2, 3)}).document
    made = plan.make(document, wanted("disk or family", {"family": (2, 3)}), reissue=["family"])
    assert made.replaced == ("family",)
    assert made.replaces_root
    assert "print new paper for family" in words(made)


@pytest.mark.parametrize(
    ("old", "new", "new_paper"),
    [
        ("disk or family", "disk or family or nas", False),
        ("2 of (disk, nas, family)", "2 of (disk, nas, family, cloud)", False),
        ("2 of (disk, nas, family)", "disk or nas or family", True),
        ("disk", "disk or family", True),
    ],
)
def test_a_rule_that_grows_says_whose_paper_no_longer_fits(
    old: str, new: str, new_paper: bool
) -> None:
    document = make(old, {"family": (2, 3)}).document
    made = plan.make(document, wanted(new, {"family": (2, 3)}))
    assert made.policy is PolicyChange.GROWS
    assert ("print new paper for family" in words(made)) == new_paper


def test_leaves_are_healed_unless_all_are_sealed_anew() -> None:
    document = make("disk or nas").document
    made = plan.make(document, wanted("disk or nas"), heal=["nas"])
    assert made.heal == ("nas",)
    assert words(made) == "seal the leaf of nas anew"
    assert plan.make(document, wanted("disk"), heal=["nas"]).heal == ()


def test_what_is_lost_for_good_is_marked() -> None:
    made = plan.make(make("disk").document, wanted("disk", keys={}, clients={}))
    assert (made.lost_keys, made.lost_clients) == (("seal",), ("bletchley",))
    assert [step.destroys for step in made.steps] == [True, True]


def test_keys_and_clients_come_and_change() -> None:
    made = plan.make(
        make("disk").document,
        wanted(
            "disk",
            keys={"seal": "transit", "k8s": "kms"},
            clients={"bletchley": WantedClient(("k8s",)), "new": WantedClient(())},
        ),
    )
    assert made.new_keys == ("k8s",)
    assert (made.new_clients, made.changed_clients) == (("new",), ("bletchley",))
    assert "admit the client new to nothing" in words(made)


def test_a_rule_of_more_sets_than_can_be_compared_can_be_changed() -> None:
    names = [f"a{n}" for n in range(21)]
    document = make(f"8 of ({', '.join(names[:20])})").document
    made = plan.make(document, wanted(f"8 of ({', '.join(names)})"))
    assert made.policy is PolicyChange.SHRINKS
    assert plan.make(document, wanted(f"8 of ({', '.join(names[:20])})")).empty


def test_a_key_never_changes_its_kind() -> None:
    with pytest.raises(ChangeRefused):
        plan.make(make("disk").document, wanted("disk", keys={"seal": "static-seal"}))


def test_a_key_that_was_imported_is_not_missed_in_the_configuration() -> None:
    document = make("disk").document
    imported = {**document.keys, "old-vault": KeyEntry("unseal-shares", 1, 1)}
    assert plan.make(replace(document, keys=imported), wanted("disk")).empty


def test_an_anchor_is_replaced_on_request_with_the_root_secret() -> None:
    made = plan.make(make("disk or nas").document, wanted("disk or nas"), reissue=["disk"])
    assert (made.replaced, made.replaces_root) == (("disk",), True)


def test_a_plan_shows_what_a_client_may_use_and_from_where() -> None:
    bound = WantedClient(("seal",), "bletchley.example", ("10.0.0.0/24",))
    made = plan.make(make("disk").document, wanted("disk", clients={"bletchley": bound}))
    assert "use seal, with a certificate for bletchley.example, from 10.0.0.0/24" in words(made)

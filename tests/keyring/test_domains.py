"""What the loss or theft of a whole place does: against brute force over all places."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from kluis.keyring import domains, policy, trust
from kluis.keyring.domains import Places
from kluis.keyring.policy import Policy
from tests.keyring.strategies import policies

NAMES = ("house", "office", "a0")  # a domain may be named like an anchor


def places(rule: str, domain_of: dict[str, str]) -> Places:
    parsed = policy.parse(rule)
    return domains.places(parsed, trust.explain(parsed), domain_of, {})


@given(policies(max_names=5), st.data())
def test_what_is_said_of_places_holds_for_every_set_of_places(
    rule: Policy, data: st.DataObject
) -> None:
    names = list(policy.names(rule))
    domain_of = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(NAMES)))
    people = dict.fromkeys(data.draw(st.sets(st.sampled_from(names), max_size=2)), (2, 3))
    found = domains.places(rule, trust.explain(rule), {**domain_of, "b": "house"}, people)
    grouped = [[n for n in names if domain_of.get(n) == d] for d in sorted(set(domain_of.values()))]
    assert [list(domain.anchors) for domain in found.domains] == [sorted(g) for g in grouped]
    for domain in found.domains:
        rest = set(names) - set(domain.anchors)
        assert domain.loss_locks == (not trust.opens_with(rule, rest))
        assert domain.theft_opens == trust.opens_with(rule, set(domain.anchors))
    assert found.alone == tuple(sorted(n for n in names if n not in domain_of))
    # every place holds some units of some anchors: a thing is one unit, people have their shares
    whole = {name: people.get(name, (1, 1)) for name in names}
    every = [[name for name in group for _ in range(whole[name][1])] for group in grouped]
    every += [[name] for name in found.alone for _ in range(whole[name][1])]

    def opens(units: list[str]) -> bool:
        return trust.opens_with(rule, {n for n in names if units.count(n) >= whole[n][0]})

    opening, locking = [], []
    for size in range(len(every) + 1):
        for chosen in combinations(range(len(every)), size):
            if opens([unit for i in chosen for unit in every[i]]):
                opening.append(size)
            if not opens([u for i, units in enumerate(every) if i not in chosen for u in units]):
                locking.append(size)
    assert found.may_be_lost == min(locking) - 1
    assert found.to_steal == min(opening)


def test_a_rule_that_bears_two_losses_may_bear_the_loss_of_no_place() -> None:
    rule = "tpm or 2 of (nas, cloud, proxmox)"
    house = dict.fromkeys(("tpm", "nas", "proxmox"), "house")
    (domain,) = places(rule, house).domains
    assert (domain.loss_locks, domain.theft_opens) == (True, True)
    assert (places(rule, house).may_be_lost, places(rule, house).to_steal) == (0, 1)
    assert (places(rule, {}).may_be_lost, places(rule, {}).to_steal) == (2, 1)

"""A loss that is only imagined: what opens is what the rule says of what is left."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.errors import UsageError
from kluis.keyring import policy, trust
from kluis.keyring.policy import Policy
from kluis.service.explain import losses
from kluis.service.explain.losses import Simulated, Wish
from tests.keyring.strategies import policies
from tests.service.installations import people, settings, static

RULE = "tpm or 2 of (nas, cloud, proxmox) or family"
ANCHORS = {
    "tpm": static(domain="house"),
    "nas": static(domain="house"),
    "cloud": static(domain="aws"),
    "proxmox": static(),
    "family": people(3, 5),
    "spare": static(domain="attic"),
}
KNOWN = settings({"homelab": RULE, "office": "spare and cloud"}, ANCHORS)


def simulated(**wish: list[str]) -> Simulated:
    (found,) = losses.simulate(KNOWN, ["homelab"], Wish(**wish))
    return found


@given(policies(), st.data())
def test_a_keyring_opens_just_when_the_rule_does_over_what_is_left(
    rule: Policy, data: st.DataObject
) -> None:
    names = list(policy.names(rule))
    lost = data.draw(st.sets(st.sampled_from(names)))
    shares = data.draw(st.dictionaries(st.sampled_from(names), st.just((2, 3))))
    gone = {name: data.draw(st.integers(0, 3)) for name in shares}
    known = settings(
        {"k": policy.show(rule)},
        {name: people(*shares[name]) if name in shares else static() for name in names},
    )
    wish = Wish([",".join(lost), *(f"{name}:{count}" for name, count in gone.items())])
    (found,) = losses.simulate(known, ["k"], wish)
    left = {n for n in names if n not in lost and gone.get(n, 0) <= 1}
    assert found.outcome.opens == trust.opens_with(rule, left)
    assert all(set(way) <= left for way in found.outcome.ways)
    only = Wish(only=[name for name in names if name not in lost and name not in shares])
    (found,) = losses.simulate(known, ["k"], only)
    assert found.outcome.opens == trust.opens_with(rule, set(names) - lost - set(shares))


@pytest.mark.parametrize(
    ("wish", "opens", "after"),
    [
        ({}, True, "with everything in place"),
        ({"lose": ["nas,cloud"]}, True, "without cloud and nas"),
        ({"lose": ["nas", " cloud ,,"]}, True, "without cloud and nas"),
        ({"lose": ["family:2"]}, True, "without 2 of the 5 shares of family"),
        (
            {"lose": ["tpm,nas,cloud,family:2"]},
            True,
            "without cloud, nas, tpm and 2 of the 5 shares of family",
        ),
        ({"lose": ["tpm,nas,cloud,family:3"]}, False, None),
        ({"lose": ["tpm,nas,cloud", "family:2,family:1"]}, False, None),
        (
            {"lose": ["tpm,nas,cloud,family"]},
            False,
            "without cloud, nas, tpm and all 5 shares of family",
        ),
        ({"lose": ["family:4,family:4"]}, True, "without all 5 shares of family"),
        ({"lose_domain": ["house,aws"]}, True, "without cloud, nas and tpm"),
        ({"lose_domain": ["house"], "lose": ["cloud,family"]}, False, None),
        ({"only": ["nas"]}, False, "with only nas"),
        ({"only": ["family:3"]}, True, "with only 3 of the 5 shares of family"),
        ({"only": ["nas,cloud"], "lose": ["nas"]}, False, "with only cloud"),
        ({"only": [""]}, False, "with nothing"),
    ],
)
def test_what_is_lost_is_said_and_decides(
    wish: dict[str, list[str]], opens: bool, after: str | None
) -> None:
    found = simulated(**wish)
    assert found.outcome.opens == opens
    assert after in (None, found.after)


@pytest.mark.parametrize(
    ("wish", "seen", "following"),
    [
        ({"lose": ["nos"]}, "there is no anchor nos in the rule", "did you mean nas?"),
        ({"only": ["zzzzzz"]}, "there is no anchor zzzzzz in the rule", "correct the name"),
        ({"lose": ["spare"]}, "there is no anchor spare in the rule", ""),
        ({"lose_domain": ["hous"]}, "there is no domain hous in the rule", "did you mean house?"),
        ({"lose_domain": ["attic"]}, "there is no domain attic in the rule", ""),
        ({"lose": ["family:6"]}, "'family:6' is no number of shares", "write family, or family:1"),
        ({"lose": ["family:"]}, "'family:' is no number of shares", ""),
        ({"lose": ["family:-1"]}, "'family:-1' is no number of shares", ""),
        ({"lose": ["family:²"]}, "'family:²' is no number of shares", ""),
        ({"lose": ["nas:1"]}, "'nas:1' is no number of shares", "write nas"),
    ],
)
def test_what_can_not_be_lost_is_one_clear_error(
    wish: dict[str, list[str]], seen: str, following: str
) -> None:
    with pytest.raises(UsageError) as caught:
        simulated(**wish)
    assert caught.value.seen == seen
    assert following in caught.value.next_step
    assert caught.value.means


def test_every_keyring_is_asked_about_what_is_lost_in_any() -> None:
    homelab, office = losses.simulate(KNOWN, ["homelab", "office"], Wish(["spare"]))
    assert (homelab.outcome.opens, homelab.after) == (True, "with everything in place")
    assert (office.outcome.opens, office.after) == (False, "without spare")


def test_the_json_names_the_ways_and_what_is_needed() -> None:
    open_one = losses.as_json(simulated(lose=["tpm,nas,family:1"]))
    assert (
        json.loads(json.dumps(open_one))
        == open_one
        == {
            "state": "open",
            "opens": RULE,
            "lost": ["nas", "tpm"],
            "people": {"family": {"threshold": 3, "shares": 5, "left": 4}},
            "ways": [["family"], ["cloud", "proxmox"]],
            "needs": [],
        }
    )
    locked = losses.as_json(simulated(only=["nas"]))
    assert (locked["state"], locked["ways"]) == ("locked", [])
    assert locked["needs"] == [["cloud"], ["family"], ["proxmox"], ["tpm"]]

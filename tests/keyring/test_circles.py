"""Circles of trust: after an outage of everything, what comes back, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kluis.keyring import circles, policy, trust
from kluis.keyring.circles import ColdStart, Graph, KeyringId, Return, Station, Supply
from tests.keyring.strategies import policies

NEVER, PEOPLE, ITSELF = Return.NEVER, Return.PEOPLE, Return.ITSELF


def keyring(name: str) -> KeyringId:
    home, _, short = name.rpartition("/")
    return KeyringId(home, short)


def graph(stations: Mapping[str, tuple[str, Mapping[str, str]]]) -> Graph:
    """Rules, and for each transit anchor the keyrings its server needs. People start with p."""
    return {
        keyring(name): Station(
            policy.parse(rule),
            frozenset(n for n in policy.names(policy.parse(rule)) if n.startswith("p")),
            {
                anchor: Supply(f"https://{anchor}", anchor, frozenset(map(keyring, needs.split())))
                for anchor, needs in supplies.items()
            },
        )
        for name, (rule, supplies) in stations.items()
    }


def cold(name: str, stations: Mapping[str, tuple[str, Mapping[str, str]]]) -> ColdStart:
    return circles.cold_start(graph(stations), keyring(name))


def ways(found: ColdStart) -> list[str]:
    return [
        " ".join(f"{hop.keyring.name}:{hop.anchor}>{hop.to.name}" for hop in circle.hops)
        for circle in found.circles
    ]


def test_a_keyring_opened_only_by_the_server_it_unseals_never_comes_back() -> None:
    found = cold("k", {"k": ("bao", {"bao": "k"})})
    assert (found.returns, found.before, found.ways) == (NEVER, ITSELF, ())
    assert ways(found) == ["k:bao>k"]
    assert (found.circles[0].closed, found.circles[0].helps) == (True, NEVER)


def test_two_installations_that_open_each_other_never_come_back() -> None:
    found = cold("k", {"k": ("far", {"far": "other/o"}), "other/o": ("near", {"near": "k"})})
    assert (found.returns, ways(found)) == (NEVER, ["k:far>o o:near>k"])
    assert [str(hop.to) for hop in found.circles[0].hops] == ["o of other", "k"]


def test_a_circle_with_another_way_comes_back_by_that_way() -> None:
    found = cold("k", {"k": ("disk or bao", {"bao": "k"})})
    assert (found.returns, found.before, found.ways) == (ITSELF, ITSELF, (("disk",),))
    assert [circle.helps for circle in found.circles] == [NEVER]


def test_a_circle_that_another_keyring_breaks_does_no_harm() -> None:
    found = cold("k", {"k": ("far", {"far": "o"}), "o": ("disk or near", {"near": "k"})})
    assert (found.returns, ways(found)) == (ITSELF, ["k:far>o o:near>k"])
    assert found.circles[0].helps is ITSELF


@pytest.mark.parametrize(
    ("rule", "returns", "before"),
    [
        ("bao or paper", PEOPLE, ITSELF),
        ("bao and paper", NEVER, PEOPLE),
        ("paper", PEOPLE, PEOPLE),
        ("2 of (bao, disk, paper)", PEOPLE, ITSELF),
    ],
)
def test_people_bring_a_keyring_back_that_does_not_come_by_itself(
    rule: str, returns: Return, before: Return
) -> None:
    found = cold("k", {"k": (rule, {"bao": "k"})})
    assert (found.returns, found.before) == (returns, before)


def test_a_keyring_beside_a_circle_does_not_come_back_either() -> None:
    beside = {"k": ("far", {"far": "o"}), "o": ("bao", {"bao": "o"})}
    found = cold("k", beside)
    assert (found.returns, ways(found), found.circles[0].closed) == (NEVER, ["k:far>o"], False)


def test_a_keyring_whose_anchor_waits_for_other_peoples_paper_waits_too() -> None:
    found = cold("k", {"k": ("far", {"far": "o"}), "o": ("paper", {})})
    assert (found.returns, found.before) == (PEOPLE, ITSELF)
    assert [(c.closed, c.helps) for c in found.circles] == [(False, PEOPLE)]


def test_an_anchor_whose_server_comes_back_by_itself_is_not_mentioned() -> None:
    found = cold("k", {"k": ("far", {"far": "o"}), "o": ("disk", {})})
    assert (found.returns, found.circles) == (ITSELF, ())


def test_a_server_that_two_keyrings_unseal_is_up_only_with_both() -> None:
    both = {"k": ("bao", {"bao": "o1 o2"}), "o1": ("disk", {}), "o2": ("x", {"x": "k"})}
    found = cold("k", both)
    assert (found.returns, ways(found)) == (NEVER, ["k:bao>o2 o2:x>k"])


def test_the_way_shown_is_the_shortest_and_a_maze_ends() -> None:
    maze = {
        "k": ("a", {"a": "m n"}),
        "m": ("b and c", {"b": "m", "c": "n"}),
        "n": ("d or e", {"d": "m", "e": "k"}),
    }
    assert ways(cold("k", maze)) == ["k:a>n n:e>k"]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to four keyrings whose anchors hang on each other at random."""
    names = [KeyringId("", f"k{n}") for n in range(draw(st.integers(1, 4)))]
    needs = st.frozensets(st.sampled_from(names), min_size=1)
    stations = {}
    for name in names:
        rule = draw(policies(max_names=4, max_depth=2))
        anchors = list(policy.names(rule))
        supplied = draw(st.sets(st.sampled_from(anchors)))
        attended = draw(st.frozensets(st.sampled_from(anchors))) - supplied
        supplies = {a: Supply("https://a", a, draw(needs)) for a in sorted(supplied)}
        stations[name] = Station(rule, attended, supplies)
    return stations


def brought_up(
    graph: Graph, people: bool, never: AbstractSet[KeyringId] = frozenset()
) -> set[KeyringId]:
    """What opens when everything is tried again and again, one keyring after another."""
    opened: set[KeyringId] = set()
    for _ in graph:
        for name, station in graph.items():
            answering = {
                anchor
                for anchor in policy.names(station.rule)
                if (people or anchor not in station.attended)
                and all(need in opened for need in _needs(station, anchor))
            }
            if name not in never and trust.opens_with(station.rule, answering):
                opened.add(name)
    return opened


def _needs(station: Station, anchor: str) -> AbstractSet[KeyringId]:
    supply = station.supplies.get(anchor)
    return supply.needs if supply else frozenset()


def leads_to(graph: Graph, start: AbstractSet[KeyringId]) -> set[KeyringId]:
    reached: set[KeyringId] = set(start)
    for _ in graph:
        for name in list(reached):
            reached.update(n for supply in graph[name].supplies.values() for n in supply.needs)
    return reached


@given(graphs())
def test_a_cold_start_is_what_trying_again_and_again_gives(graph: Graph) -> None:
    alone, helped = brought_up(graph, people=False), brought_up(graph, people=True)
    for name, station in graph.items():
        found = circles.cold_start(graph, name)
        assert found.returns == (name in alone) + (name in helped)
        assert found.returns <= found.before
        unattended = set(policy.names(station.rule)) - station.attended
        assert (found.before is ITSELF) == trust.opens_with(station.rule, unattended)
        assert bool(found.ways) == (found.returns is not NEVER)
        assert all(trust.opens_with(station.rule, set(way)) for way in found.ways)


@given(graphs())
def test_an_anchor_is_a_circle_just_when_it_leads_back_or_does_not_help(graph: Graph) -> None:
    for name, station in graph.items():
        found = {circle.anchor: circle for circle in circles.cold_start(graph, name).circles}
        alone = brought_up(graph, people=False, never={name})
        helped = brought_up(graph, people=True, never={name})
        for anchor, supply in station.supplies.items():
            helps = Return((supply.needs <= alone) + (supply.needs <= helped))
            back = name in leads_to(graph, supply.needs)
            assert (anchor in found) == (back or helps is not ITSELF)
            if anchor in found:
                circle = found[anchor]
                assert (circle.helps, circle.closed) == (helps, back)
                for hop, after in zip(circle.hops, circle.hops[1:], strict=False):
                    assert hop.to == after.keyring
                assert all(hop.to in hop.supply.needs for hop in circle.hops)

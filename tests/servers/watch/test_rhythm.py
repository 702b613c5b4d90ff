"""How soon the next look comes, and since when a server is down: both as tables."""

from __future__ import annotations

import pytest

from kluis.servers.watch.downtime import Downtime
from kluis.servers.watch.rhythm import Pace, pace_of, pause_s
from kluis.servers.watch.states import Alarm, Condition, NodeView, Recovery


@pytest.mark.parametrize(
    ("condition", "alarmed", "working", "pace"),
    [
        ("unsealed", False, True, Pace.WELL),
        ("unsealed", True, True, Pace.WELL),
        ("unsealed", False, False, Pace.CHANGING),  # about to become active
        ("unreachable", False, True, Pace.CHANGING),
        ("unsealing", False, False, Pace.CHANGING),
        ("unknown", False, False, Pace.CHANGING),
        ("uninitialised", False, False, Pace.CHANGING),
        ("uninitialised", True, False, Pace.STUCK),
        ("held", False, False, Pace.STUCK),
        ("sealed", True, False, Pace.STUCK),
        ("wrong", True, False, Pace.STUCK),
        ("hung", False, False, Pace.HUNG),
    ],
)
def test_the_pace(condition: str, alarmed: bool, working: bool, pace: Pace) -> None:
    assert pace_of(Condition(condition), alarmed=alarmed, working=working) is pace


@pytest.mark.parametrize(
    ("pace", "looks", "nodes", "changing", "wanted_s"),
    [
        (Pace.WELL, 1, 1, 0, 1.0),
        (Pace.WELL, 1, 25, 0, 1.0),
        (Pace.WELL, 1, 500, 0, 20.0),
        (Pace.WELL, 1, 1000, 0, 40.0),
        (Pace.WELL, 1, 50_000, 0, 40.0),
        (Pace.CHANGING, 0, 1, 1, 0.1),
        (Pace.CHANGING, 100_000, 1, 1, 0.5),
        (Pace.CHANGING, 0, 1000, 1000, 2.0),  # at most 500 knocks a second
        (Pace.STUCK, 0, 1, 0, 0.5),
        (Pace.STUCK, 99, 1, 0, 2.0),
        (Pace.HUNG, 0, 1, 0, 0.5),
        (Pace.HUNG, 99, 1, 0, 5.0),
    ],
)
def test_the_pause(pace: Pace, looks: int, nodes: int, changing: int, wanted_s: float) -> None:
    def pause(draw: float) -> float:
        return pause_s(pace, looks, nodes=nodes, changing=changing, draw=draw)

    assert pause(0.5) == pytest.approx(wanted_s)
    assert pause(0.0) == pytest.approx(0.85 * wanted_s)
    assert pause(1.0) == pytest.approx(1.15 * wanted_s)


def test_nodes_that_came_up_together_are_not_asked_together() -> None:
    pauses = [pause_s(Pace.WELL, 0, nodes=1000, changing=0, draw=n / 10) for n in range(11)]
    assert pauses == pytest.approx([1.0 + 3.9 * n for n in range(11)])


def nodes(*conditions: str) -> list[NodeView]:
    """``active`` is an unsealed one that does the work, ``lone`` one that knows no active one."""
    found = []
    for number, word in enumerate(conditions):
        condition = Condition.UNSEALED if word in ("active", "lone") else Condition(word)
        alarm = Alarm.NO_LEADER if word == "lone" else None
        found.append(NodeView(str(number), condition, 0.0, word == "active", alarm))
    return found


@pytest.mark.parametrize(
    ("seen", "down_s"),
    [
        ([["active"]], None),  # it was found so
        ([["unknown"], ["active"]], None),
        ([["sealed"], ["active"]], 1.0),
        ([["unknown", "unreachable"], ["unknown", "active"]], None),  # not known to be down
        ([["active"], ["unreachable"], ["unsealing"], ["unsealed"], ["active"]], 3.0),
        ([["active", "unsealed"], ["unreachable", "unsealed"], ["sealed", "active"]], None),
        ([["unreachable", "hung"], ["unsealed", "hung"], ["active", "hung"]], 2.0),
        ([["active"], ["wrong"], ["active"]], 1.0),
        ([["active"], ["hung"], ["active"]], None),  # a moment
        ([["active"], *[["hung"]] * 10, ["active"]], 10.0),
        ([["active"], ["hung"], ["unsealing"], ["active"]], 2.0),
        ([[], ["active"]], 1.0),  # no pod was there
        ([["active"], ["unsealed"], ["lone"], ["lone"], ["active"]], 2.0),
        ([["active"], ["lone", "hung"], ["active"]], 1.0),
        ([["active", "unsealed"], ["lone", "unsealed"], ["lone", "active"]], None),
    ],
)
def test_a_recovery(seen: list[list[str]], down_s: float | None) -> None:
    downtime = Downtime("vault")
    told = [downtime.see(nodes(*words), float(now_s)) for now_s, words in enumerate(seen)]
    assert told[-1] == (None if down_s is None else Recovery("vault", down_s))
    assert not any(told[:-1])
    assert downtime.since_s is None


def test_the_first_node_that_is_unsealed_tells_how_long_that_took() -> None:
    downtime = Downtime("vault")
    downtime.unsealed(9.0)  # while it was up: of no interest
    downtime.see(nodes("unreachable", "unreachable"), 0.0)
    downtime.unsealed(0.2)
    downtime.see(nodes("unsealed", "unreachable"), 1.0)
    downtime.unsealed(0.9)
    assert downtime.see(nodes("active", "unsealed"), 2.0) == Recovery("vault", 2.0, 0.2)
    downtime.see(nodes("sealed", "sealed"), 3.0)
    assert downtime.see(nodes("active", "sealed"), 4.0) == Recovery("vault", 1.0, None)

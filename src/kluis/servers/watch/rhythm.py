"""How long until a node is looked at again. Nothing here has I/O.

While all is well a look is rare, for the idle connection tells of a restart at once. While a node
is on its way back a look is cheap, a TCP connect, and comes soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from kluis.servers.watch.states import Condition

LOOKS_OF_A_FLEET: Final = 500.0  # a second, at nodes that are on their way back
WELL_S: Final = (1.0, 40.0)
PER_NODE_S: Final = 0.04  # while all are well: 25 looks a second, of up to 1 000 nodes
_JITTER: Final = 0.15


class Pace(Enum):
    """What a node is in, as far as the next look goes."""

    WELL = auto()
    CHANGING = auto()  # away, or on its way back
    STUCK = auto()  # somebody has to do something first
    HUNG = auto()


@dataclass(frozen=True, slots=True)
class _Growth:
    """The first pause, how it grows with every look, and the longest."""

    first_s: float
    factor: float
    longest_s: float


_GROWTH: Final = {
    Pace.CHANGING: _Growth(0.1, 1.15, 0.5),
    Pace.STUCK: _Growth(0.5, 1.3, 2.0),
    Pace.HUNG: _Growth(0.5, 1.6, 5.0),
}
_MOST_STEPS: Final = 32  # by then every pause is the longest


def pace_of(condition: Condition, *, alarmed: bool, working: bool) -> Pace:
    """The pace for a node; ``working``: a node of its server is unsealed and active."""
    if condition is Condition.UNSEALED:
        return Pace.WELL if working else Pace.CHANGING
    if condition is Condition.HUNG:
        return Pace.HUNG
    if condition in (Condition.UNKNOWN, Condition.UNREACHABLE, Condition.UNSEALING):
        return Pace.CHANGING
    if condition is Condition.UNINITIALISED and not alarmed:
        return Pace.CHANGING
    return Pace.STUCK


def pause_s(pace: Pace, looks: int, *, nodes: int, changing: int, draw: float) -> float:
    """Seconds until the next look.

    ``looks`` counts those since the node came into this pace, ``nodes`` all that are watched, and
    ``changing`` those of them whose pace is CHANGING. ``draw`` is a random number in [0, 1).
    """
    jitter = 1.0 + _JITTER * (2.0 * draw - 1.0)
    if pace is Pace.WELL:
        low_s, high_s = WELL_S
        longest_s = min(high_s, max(low_s, nodes * PER_NODE_S))
        # Those that came up together are spread, and stay so.
        return longest_s * jitter if looks else low_s + (longest_s - low_s) * draw
    growth = _GROWTH[pace]
    wanted_s = min(growth.longest_s, growth.first_s * growth.factor ** min(looks, _MOST_STEPS))
    if pace is Pace.CHANGING:
        wanted_s = max(wanted_s, changing / LOOKS_OF_A_FLEET)
    return wanted_s * jitter

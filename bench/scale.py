"""How much a run measures: a full run, or a quick one that only shows that all of it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Scale:
    """Rounds, seconds and connections of each benchmark."""

    quick: bool
    restarts: int
    unlocks: int
    load_rounds: int
    load_s: float
    warm_up_s: float
    storm_connections: int
    memory_requests: int
    status_rounds: int
    openings: int
    first_openings: int
    watches: int
    watch_restarts: int
    fleet: int
    settle_s: float
    steady_s: float
    hurry: float
    """By how much the loops' intervals are divided; 1 but in a quick run."""


FULL: Final = Scale(
    quick=False,
    restarts=25,
    unlocks=15,
    load_rounds=5,
    load_s=3,
    warm_up_s=1,
    storm_connections=10_000,
    memory_requests=100_000,
    status_rounds=10,
    openings=100,
    first_openings=10,
    watches=10,
    watch_restarts=100,
    fleet=1_000,
    settle_s=30,
    steady_s=60,
    hurry=1,
)
QUICK: Final = Scale(
    quick=True,
    restarts=3,
    unlocks=2,
    load_rounds=2,
    load_s=1,
    warm_up_s=1,
    storm_connections=500,
    memory_requests=5_000,
    status_rounds=3,
    openings=5,
    first_openings=1,
    watches=2,
    watch_restarts=4,
    fleet=50,
    settle_s=2,
    steady_s=2,
    hurry=20,
)


def say(text: str) -> None:
    """Tell whoever watches what is being done."""
    print(text, flush=True)

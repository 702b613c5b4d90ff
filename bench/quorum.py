"""How long a keyring takes to open by its rule: any of five, two of five, past one that hangs.

The clock starts when the anchors are asked, and stops when the tag of the document's body accepted
what they gave. After it comes a rest, in which the calls end that nobody waits for any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from bench.counterparts import KINDS, REAL, Counterparts, Keyring, counted_as_failed, counterparts
from bench.first_open import first_opening
from bench.processes import workshop
from bench.results import Ratio, Result, Series, Target
from bench.scale import Scale, say
from tests.support.tang import Between, Reply, Request, Tang

ANY, TWO = "any of five", "two of five"
RULES: Final = {ANY: " or ".join(REAL), TWO: f"2 of ({', '.join(REAL)})"}
ONCE: Final = ", first opening of a process"
LATE_MS: Final = 20.0
LATE = f"one that answers after {LATE_MS:g} ms, alone"
HUNG = f"any of two: one hangs, one answers after {LATE_MS:g} ms"
LIMIT_MS: Final = 100.0
REST_S: Final = 0.1

Found = dict[str, list[float]]
Keyrings = Mapping[str, Keyring]


def run(scale: Scale) -> Result:
    """Measure the rules over five anchors, then the one with an anchor that hangs."""
    found: Found = defaultdict(list)
    with workshop() as folder:
        with counterparts(folder) as there:
            keyrings = uvloop.run(_keyrings(there.only(*REAL)))
            uvloop.run(_measure(keyrings, scale.openings, found))
            _measure_first(keyrings, scale.first_openings, found)
        say(f"  {scale.openings} rounds with five anchors")
        with _two_tangs(folder) as (there, freeze):
            uvloop.run(_measure_hung(there, freeze, scale.openings, found))
        say(f"  {scale.openings} rounds with one that hangs")
    return _result(found)


async def _keyrings(there: Counterparts) -> Keyrings:
    """A keyring for each anchor alone, and one for each rule."""
    alone = {name: await there.only(name).keyring(name, name) for name in REAL}
    ruled = {what: await there.keyring(f"rule{i}", RULES[what]) for i, what in enumerate(RULES)}
    return {**alone, **ruled}


async def _measure(keyrings: Keyrings, rounds: int, found: Found) -> None:
    for number in range(rounds + 1):
        for what, keyring in keyrings.items():
            took_ms = await keyring.open_ms()
            if number:  # the first round warms up
                found[what].append(took_ms)
            if what in RULES:
                await asyncio.sleep(REST_S)


def _measure_first(keyrings: Keyrings, rounds: int, found: Found) -> None:
    for number in range(rounds + 1):
        for what in RULES:
            took = first_opening(keyrings[what].configuration, keyrings[what].document)
            if number:  # the first round has the files read from the disk
                found[what + ONCE].append(took.open_ms)


async def _measure_hung(
    there: Counterparts, freeze: Callable[[], None], rounds: int, found: Found
) -> None:
    alone = await there.only("late").keyring("late", "late")
    both = await there.keyring("both", "hung or late")
    freeze()
    for number in range(rounds + 1):
        late_ms, both_ms = await alone.open_ms(), await both.open_ms()
        if number:  # the first round warms up
            found[LATE].append(late_ms)
            found[HUNG].append(both_ms)


@contextlib.contextmanager
def _two_tangs(folder: Path) -> Iterator[tuple[Counterparts, Callable[[], None]]]:
    """Two Tang servers, one of them slow; and what lets the other one hang."""
    with contextlib.ExitStack() as stack:
        with counted_as_failed():
            hung = stack.enter_context(Tang(folder / "hung"))
            late = stack.enter_context(Tang(folder / "late"))
        between = stack.enter_context(Between(late.url))
        between.now = lambda request: _late(between, request)
        settings = {
            name: f'kind = "tang"\nurl = "{url}"\nthumbprint = "{tang.thumbprint()}"'
            for name, url, tang in (("hung", hung.url, hung), ("late", between.url, late))
        }
        yield Counterparts(folder, settings), hung.freeze


def _late(between: Between, request: Request) -> Reply:
    """The server's answer, not before its time."""
    until_s = time.perf_counter() + LATE_MS / 1000
    reply = between.passed_on(request)
    time.sleep(max(0.0, until_s - time.perf_counter()))
    return reply


def _result(found: Mapping[str, Sequence[float]]) -> Result:
    ranked = sorted(REAL, key=lambda name: median(found[name]))
    members = {name: f"{KINDS[name]}, alone" for name in ranked}
    others = (*RULES, *(what + ONCE for what in RULES), LATE, HUNG)
    names = members | {what: what for what in others}
    series = {name: Series(what, "ms", tuple(found[name])) for name, what in names.items()}
    pairs = ((ANY, ranked[0], "fastest"), (TWO, ranked[1], "second fastest"))
    ratios = tuple(
        Ratio.of(f"{rule} / the {place}, {members[name]}", found[rule], found[name])
        for rule, name, place in pairs
    )
    hung = series[HUNG].spread
    targets = (
        Target(HUNG, "at most", LIMIT_MS, "ms", hung.median),
        Target(f"{HUNG}, slowest", "at most", LIMIT_MS, "ms", hung.most),
    )
    return Result("quorum", "Opening by a rule", tuple(series.values()), ratios, targets)

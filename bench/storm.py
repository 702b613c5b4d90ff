"""Many servers come back at once while kluis is locked: a power cut. Then two people unlock.

Every server has a TLS connection of its own (no session is resumed). Clients and kluis share the
machine's cores, so this is harder than the same number of servers elsewhere would be.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Final

from bench import certificates, load
from bench.processes import (
    BenchFailed,
    clean_environment,
    raise_open_files_limit,
    wait_until,
    workshop,
)
from bench.results import Result, Series, Target
from bench.scale import Scale, say
from bench.service import Kluis
from bench.storm_client import BUDGET_S, SENT, Outcome, Storm

REPOSITORY: Final = Path(__file__).resolve().parent.parent
# After so long a stock server breaks a TLS handshake off and tries again (its API client does).
HANDSHAKE_S: Final = 10.0


@dataclass(frozen=True)
class Weathered:
    """A storm that is over: what the clients saw, and when ``kluis unlock`` was started."""

    outcome: Outcome
    held_at_s: float
    unlock_at_s: float


def run(scale: Scale) -> Result:
    """One storm on a fresh kluis."""
    with workshop() as folder:
        kluis = Kluis(folder / "kluis", certificates.make(folder))
        kluis.serve()
        idle_mib = kluis.running.rss_mib()
        cpu_s = kluis.running.cpu_s()
        weathered = weather(kluis, scale.storm_connections)
        cpu_s = kluis.running.cpu_s() - cpu_s
        peak_mib = kluis.running.peak_rss_mib()
    return _result(scale.storm_connections, weathered, idle_mib, peak_mib, cpu_s)


def weather(kluis: Kluis, connections: int) -> Weathered:
    """Lock, let the storm come, unlock once every decrypt is held. Raises BenchFailed."""
    raise_open_files_limit(connections + 128)
    plaintext = load.root_key_wrap()
    sealed = load.Call(kluis.access, "encrypt", json.dumps({"plaintext": plaintext})).once()
    access = kluis.access
    storm = Storm(
        address=access.address,
        ca_file=str(access.ca_file),
        mount=access.mount,
        key=access.key,
        token=access.token,
        ciphertext=sealed["ciphertext"],
        plaintext=plaintext,
        connections=connections,
    )
    kluis.lock()
    say(f"  {connections} TLS connections at once")
    with subprocess.Popen(
        [sys.executable, "-m", "bench.storm_client"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        cwd=REPOSITORY,
    ) as clients:
        try:
            return _weather(kluis, storm, clients)
        finally:
            clients.kill()


def _weather(kluis: Kluis, storm: Storm, clients: subprocess.Popen[str]) -> Weathered:
    _pipe(clients.stdin).write(json.dumps(asdict(storm)) + "\n")
    _pipe(clients.stdin).close()
    if _pipe(clients.stdout).readline().strip() != SENT:
        raise BenchFailed("the clients of the storm ended early")
    # A client that failed is not held, so this wait has an end; its failure is counted later.
    with contextlib.suppress(BenchFailed):
        held = partial(_all_held, kluis, storm.connections)
        wait_until(held, "every decrypt is held", 5)
    held_at_s = time.monotonic()
    say("  every decrypt was sent; two people enter their shares")
    unlock_at_s = time.monotonic()
    kluis.unlock()
    outcome = Outcome(**json.loads(_pipe(clients.stdout).readline()))
    say(f"  {outcome.served} of {storm.connections} were served")
    return Weathered(outcome, held_at_s, unlock_at_s)


def _all_held(kluis: Kluis, connections: int) -> bool:
    return kluis.metric("kluis_held_requests") >= connections


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _result(
    connections: int, weathered: Weathered, idle_mib: float, peak_mib: float, cpu_s: float
) -> Result:
    outcome = weathered.outcome
    connect_s = outcome.connect_s or [BUDGET_S]
    failed = connections - outcome.served
    to_first_s = outcome.first_served_at_s - weathered.unlock_at_s
    to_last_s = outcome.last_served_at_s - weathered.unlock_at_s
    each_kib = (peak_mib - idle_mib) * 1024 / connections
    slow = sum(seconds > HANDSHAKE_S for seconds in connect_s)
    rows = (
        ("clients", "", connections),
        ("clients not served", "", failed),
        ("all clients: connect to held", "s", weathered.held_at_s - outcome.began_at_s),
        ("TCP and TLS handshake, median", "s", median(connect_s)),
        ("TCP and TLS handshake, slowest", "s", connect_s[-1]),
        (f"TCP and TLS handshakes over {HANDSHAKE_S:g} s", "", slow),
        ("start of kluis unlock to first answer", "s", to_first_s),
        ("start of kluis unlock to last answer", "s", to_last_s),
        ("longest call of a client", "s", outcome.longest_call_s),
        ("kluis: memory before", "MiB", idle_mib),
        ("kluis: peak memory", "MiB", peak_mib),
        ("kluis: peak memory for each client", "KiB", each_kib),
        ("kluis: processor time for each client", "ms", cpu_s * 1000 / connections),
    )
    series = tuple(Series(what, unit, (round(value, 4),)) for what, unit, value in rows)
    targets = (
        Target("clients not served", "at most", 0, "", failed),
        Target("longest call of a client", "at most", BUDGET_S, "s", outcome.longest_call_s),
    )
    conditions: dict[str, str | int | float] = {"connections": connections}
    conditions |= {f"failure: {name}": count for name, count in outcome.failures.items()}
    return Result("storm", "Storm after a power cut", series, (), targets, conditions)

"""How long a Shamir-sealed server stays sealed once it listens: kluis watch, and today's loops.

Every server has its own keeper and its own data; all are over TLS. In each round all are killed
at a random moment and started again. The clock starts as a server first answers, and stops at the
first 200 of ``sys/health``; both are polled every 10 ms. The server's own unseal, measured by
entering the shares at once, is in every number. Then kluis alone, many times, while it watches a
fleet of servers that are well; and the processor time that the fleet takes.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Final

from bench import certificates, fleet, pollers
from bench.certificates import Certificates
from bench.openbao import OpenBao
from bench.polling import moment_of
from bench.processes import Program, free_port, raise_open_files_limit, workshop
from bench.results import Ratio, Result, Series, Target
from bench.scale import Scale, say
from bench.service import watching

OURS: Final = "kluis watch"
BY_HAND: Final = "the shares at once, by a program"
AMONG: Final = "kluis watch, among {count} servers"
POLL_S: Final = 0.01


def run(scale: Scale) -> Result:
    """Measure all keepers side by side, then kluis beside a fleet."""
    raise_open_files_limit(3 * scale.fleet + 1000)
    with workshop() as folder:
        tls = certificates.make(folder)
        beside = _side_by_side(folder / "beside", tls, scale)
        among, cpu_percent = _among(folder / "among", tls, scale)
    name = AMONG.format(count=scale.fleet)
    series = [Series(what, "s", tuple(times)) for what, times in beside.items()]
    series.append(Series(name, "s", tuple(among)))
    series.append(Series(f"{scale.fleet} servers that are well: of one core", "%", (cpu_percent,)))
    p99 = quantiles(among, n=100, method="inclusive")[98]
    return Result(
        "watch",
        "Sealed to active",
        tuple(series),
        ratios=tuple(
            Ratio.of(f"{what} / {OURS}", beside[what], beside[OURS]) for what in pollers.EVERY_S
        ),
        targets=(
            Target(f"{name}: listening to active, p99", "at most", 1.0, "s", round(p99, 4)),
            Target(
                f"{scale.fleet} servers that are well", "at most", 5.0, "% of a core", cpu_percent
            ),
        ),
        conditions={"fleet": scale.fleet, "intervals divided by": scale.hurry},
    )


def _side_by_side(folder: Path, tls: Certificates, scale: Scale) -> Mapping[str, list[float]]:
    servers, shares = {}, {}
    for number, what in enumerate((OURS, BY_HAND, *pollers.EVERY_S)):
        servers[what] = OpenBao(folder / f"openbao-{number}", "", tls=tls)
        shares[what] = _initialised(servers[what])
    watching(folder / "kluis", tls, servers[OURS], shares[OURS])
    for number, (what, every_s) in enumerate(pollers.EVERY_S.items()):
        loop = folder / f"loop-{number}"
        loop.mkdir(mode=0o700)
        pollers.start(loop, servers[what], shares[what], every_s / scale.hurry)
    for what, server in servers.items():
        _sealed_s(server, shares[BY_HAND] if what == BY_HAND else ())
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(scale.watches):
        # the slowest loop has just been, so a kill at once would always meet it at its worst
        time.sleep(random.uniform(0, max(pollers.EVERY_S.values())) / scale.hurry)
        for server in servers.values():
            server.kill9()
        for what, sealed_s in _all_at_once(servers, shares[BY_HAND]).items():
            found[what].append(sealed_s)
        say(f"  round {number + 1} of {scale.watches}")
    for server in servers.values():
        server.kill9()
    return {what: found[what] for what in servers}


def _all_at_once(servers: Mapping[str, OpenBao], by_hand: Sequence[str]) -> Mapping[str, float]:
    """Start all servers; of each, how long it was sealed."""
    found: dict[str, float] = {}

    def see(what: str, server: OpenBao) -> None:
        found[what] = _sealed_s(server, by_hand if what == BY_HAND else ())

    for server in servers.values():
        server.start()
    seeing = [threading.Thread(target=see, args=each, daemon=True) for each in servers.items()]
    for thread in seeing:
        thread.start()
    for thread in seeing:
        thread.join(120)
    return found


def _sealed_s(server: OpenBao, shares: Sequence[str]) -> float:
    """From its first answer to active, in seconds; given ``shares``, they are entered here."""
    listening_s = _first_answer(server)
    for share in shares:
        server.call("PUT", "sys/unseal", {"key": share})
    active_s = moment_of(server.health, 200, server.running.check, 120, POLL_S)
    return active_s - listening_s


def _first_answer(server: OpenBao) -> float:
    while not server.health():
        server.running.check()
        time.sleep(POLL_S)
    return time.perf_counter()


def _initialised(server: OpenBao) -> list[str]:
    """Start and initialise it: two of three shares, of which two are returned."""
    server.start()
    server.moment_of(501)
    body = server.call("PUT", "sys/init", {"secret_shares": 3, "secret_threshold": 2}).body
    keys = body["keys"]
    assert isinstance(keys, list)
    return [str(key) for key in keys[:2]]


def _among(folder: Path, tls: Certificates, scale: Scale) -> tuple[list[float], float]:
    """Kluis alone beside a fleet: how long the one server was sealed, and the processor's time."""
    server = OpenBao(folder / "openbao", "", tls=tls)
    shares = _initialised(server)
    port = free_port()
    argv = ["-m", "bench.fleet", str(port), str(tls.certificate), str(tls.key)]
    Program([sys.executable, *argv], folder / "fleet.log")
    kluis = watching(
        folder / "kluis", tls, server, shares, list(fleet.addresses(scale.fleet, port))
    )
    _sealed_s(server, ())
    time.sleep(scale.settle_s)  # the handshakes with the fleet are over
    before_s = kluis.cpu_s()
    time.sleep(scale.steady_s)
    percent = round((kluis.cpu_s() - before_s) / scale.steady_s * 100, 2)
    found = []
    for number in range(scale.watch_restarts):
        time.sleep(random.uniform(0, 1))
        server.kill9()
        time.sleep(random.uniform(0, 1))
        server.start()
        found.append(_sealed_s(server, ()))
        if number % 10 == 9:
            say(f"  restart {number + 1} of {scale.watch_restarts}")
    return found, percent

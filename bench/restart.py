"""How long a stock OpenBao takes from its start until it is active, by its kind of seal.

One server for each seal, each killed with SIGKILL and started again. Only the server that is
measured runs, besides the two that serve Transit. The clock starts as the process is started.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from bench import certificates
from bench.openbao import OpenBao, TransitServer, static_seal, transit_seal
from bench.processes import workshop
from bench.results import Ratio, Result, Series, Target
from bench.scale import Scale, say
from bench.service import Kluis

STATIC = "seal static, key in a file"
BUILT_IN = "seal transit, a second OpenBao"
FACADE = "seal transit, kluis"
OVER_TLS = ", over TLS"


def run(scale: Scale) -> Result:
    """Measure all seals, one after the other in each round."""
    with workshop() as folder:
        servers = _servers(folder)
        found: dict[str, list[float]] = defaultdict(list)
        names = list(servers)
        for number in range(scale.restarts + 1):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds = _restart(servers[name])
                if number:  # the first round warms up
                    found[name].append(seconds)
            say(f"  round {number} of {scale.restarts}")
    return _result(dict(found), names)


def _servers(folder: Path) -> dict[str, OpenBao]:
    """One initialised server for each seal, none of them running."""
    tls = certificates.make(folder)
    servers = {STATIC: OpenBao(folder / "static", static_seal(folder / "static.key"))}
    for suffix, files in (("", None), (OVER_TLS, tls)):
        label = "tls" if files else "plain"
        say(f"  a second OpenBao with file audit and kluis serve, {label}")
        peer = TransitServer(folder / f"peer-{label}", tls=files)
        kluis = Kluis(folder / f"kluis-{label}", files)
        kluis.serve()
        for name, access in ((BUILT_IN, peer.serve_transit()), (FACADE, kluis.access)):
            place = folder / f"guarded-{len(servers)}"
            servers[name + suffix] = OpenBao(place, transit_seal(access))
    for server in servers.values():
        server.init()
        server.kill9()
    return servers


def _restart(server: OpenBao) -> float:
    started_s = time.perf_counter()
    server.start()
    seconds = server.moment_of(200) - started_s
    server.kill9()
    return seconds


def _result(found: dict[str, list[float]], names: list[str]) -> Result:
    pairs = [
        (FACADE, BUILT_IN),
        (FACADE + OVER_TLS, BUILT_IN + OVER_TLS),
        (FACADE, STATIC),
    ]
    ratios = tuple(Ratio.of(f"{a} / {b}", found[a], found[b]) for a, b in pairs)
    targets = tuple(
        Target(f"restart to active: {ratio.what}", "at most", 1.15, "×", ratio.spread.median)
        for ratio in ratios[:2]
    )
    series = tuple(Series(name, "s", tuple(found[name])) for name in names)
    return Result("restart", "Restart to active", series, ratios, targets)

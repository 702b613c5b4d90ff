"""Transit encrypts and decrypts: kluis beside a stock OpenBao, under the same load.

Both write a file audit and take a token that is no root token. OpenBao's token is a periodic one,
as its documentation makes it for a seal. It then has the policy named "default" besides its own,
which is a template that OpenBao fills in anew for each request. So OpenBao is also measured at its
best, with a token that has only a policy of its own; and so without its audit. The servers take
turns; each is idle while another one is measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import certificates, load
from bench.certificates import Certificates
from bench.openbao import Access, TransitServer
from bench.processes import Program, workshop
from bench.results import Ratio, Result, Series, Target
from bench.scale import Scale, say
from bench.service import Kluis

KLUIS = "kluis"
DOCUMENTED = "OpenBao"
LEAN = "OpenBao, lean token"
UNAUDITED = "OpenBao, lean token, no audit"
# Whom kluis is compared with, and by how much it is to be faster at decrypts.
PEERS = {DOCUMENTED: 4.0, LEAN: 4.0, UNAUDITED: 1.0}
OPERATIONS: dict[str, Callable[[Access], load.Call]] = {
    "decrypt": load.decrypt,
    "encrypt": load.encrypt,
}
RATE, P50, P99, CPU = "requests", "p50", "p99", "processor time"
UNITS = {RATE: "1/s", P50: "ms", P99: "ms", CPU: "µs each"}

Found = dict[str, list[float]]


@dataclass(frozen=True)
class Served:
    """A server under load."""

    access: Access
    program: Program


def run(scale: Scale) -> Result:
    """Measure both operations with TLS off and on."""
    found: Found = defaultdict(list)
    with workshop() as folder:
        tls = certificates.make(folder)
        for where, files in (("TLS off", None), ("TLS on", tls)):
            with workshop() as place:
                servers = _servers(place / "servers", files)
                for operation in OPERATIONS:
                    _measure(scale, f"{operation}, {where}", operation, servers, found)
    return _result(scale, found)


def _servers(folder: Path, tls: Certificates | None) -> dict[str, Served]:
    folder.mkdir(mode=0o700)
    kluis = Kluis(folder / "kluis", tls)
    kluis.serve()
    servers = {KLUIS: Served(kluis.access, kluis.running)}
    for name in PEERS:
        place = folder / f"peer{len(servers)}"
        peer = TransitServer(place, tls=tls, audited=name != UNAUDITED)
        access = peer.serve_transit(default_policy=name == DOCUMENTED)
        servers[name] = Served(access, peer.running)
    return servers


def _measure(
    scale: Scale, title: str, operation: str, servers: dict[str, Served], found: Found
) -> None:
    calls = {name: OPERATIONS[operation](server.access) for name, server in servers.items()}
    for call in calls.values():
        load.run(call, scale.warm_up_s)
    for number in range(1, scale.load_rounds + 1):
        for name, call in calls.items():
            before_s = servers[name].program.cpu_s()
            seen = load.run(call, scale.load_s)
            cpu_us = (servers[name].program.cpu_s() - before_s) / seen.requests * 1e6
            rows = {RATE: seen.requests_per_s, P50: seen.p50_ms, P99: seen.p99_ms, CPU: cpu_us}
            for row, value in rows.items():
                found[series_name(title, name, row)].append(round(value, 3))
        say(f"  {title}: round {number} of {scale.load_rounds}")


def series_name(title: str, server: str, row: str) -> str:
    """What a series is called: ``decrypt, TLS off, kluis: requests``."""
    return f"{title}, {server}: {row}"


def _result(scale: Scale, found: Found) -> Result:
    series = tuple(
        Series(name, UNITS[name.rpartition(": ")[2]], tuple(samples))
        for name, samples in found.items()
    )
    ratios: list[Ratio] = []
    targets: list[Target] = []
    for operation in OPERATIONS:
        for where in ("TLS off", "TLS on"):
            title = f"{operation}, {where}"
            for peer, limit in PEERS.items():
                ratio = _ratio(found, title, peer)
                ratios.append(ratio)
                if operation == "decrypt":
                    median = ratio.spread.median
                    targets.append(Target(ratio.what, "at least", limit, "×", median))
    conditions = {"connections": load.CONNECTIONS, "seconds a round": scale.load_s}
    return Result(
        "throughput", "Transit throughput", series, tuple(ratios), tuple(targets), conditions
    )


def _ratio(found: Found, title: str, peer: str) -> Ratio:
    ours, theirs = (found[series_name(title, name, RATE)] for name in (KLUIS, peer))
    return Ratio.of(f"{title}: {KLUIS} / {peer}", ours, theirs)

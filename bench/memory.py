"""How much memory ``kluis serve`` holds: idle, after many requests, after a storm."""

from __future__ import annotations

import time

from bench import certificates, load
from bench.openbao import TransitServer
from bench.processes import workshop
from bench.results import Result, Series
from bench.scale import Scale, say
from bench.service import Kluis
from bench.storm import weather

SETTLE_S = 5.0


def run(scale: Scale) -> Result:
    """Measure kluis, and a stock OpenBao under the same requests."""
    rows: list[tuple[str, float]] = []
    requests = f"after {scale.memory_requests:,} requests".replace(",", " ")
    with workshop() as folder:
        tls = certificates.make(folder)
        peer = TransitServer(folder / "peer", tls=tls)
        peer_access = peer.serve_transit()
        kluis = Kluis(folder / "kluis", tls)
        kluis.serve()
        servers = (("kluis", kluis.access, kluis.running), ("OpenBao", peer_access, peer.running))
        for name, access, program in servers:
            rows.append((f"{name}, idle", program.rss_mib()))
            say(f"  {scale.memory_requests} requests on {name}")
            _requests(load.decrypt(access), scale.memory_requests)
            rows.append((f"{name}, {requests}", program.rss_mib()))
        weather(kluis, scale.storm_connections)
        rows.append(("kluis, highest during a storm", kluis.running.peak_rss_mib()))
        time.sleep(SETTLE_S)
        rows.append((f"kluis, {SETTLE_S:g} s after the storm", kluis.running.rss_mib()))
    series = tuple(Series(what, "MiB", (round(value, 1),)) for what, value in rows)
    conditions = {"connections of the storm": scale.storm_connections}
    return Result("memory", "Memory", series, conditions=conditions)


def _requests(call: load.Call, wanted: int) -> None:
    done = 0
    while done < wanted:
        done += load.run(call, 2).requests

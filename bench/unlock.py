"""How long a server that waited for a locked kluis takes once people entered enough shares.

Each time the server is killed and started again while kluis is locked, so that its decrypt is
held; then ``kluis unlock`` is given two shares. The keyring's opening and the server's are both
seen from outside, each polled every 2 ms.
"""

from __future__ import annotations

import threading
import time

from bench.openbao import OpenBao, transit_seal
from bench.polling import moment_of
from bench.processes import wait_until, workshop
from bench.results import Result, Series, Target
from bench.scale import Scale, say
from bench.service import Kluis

ACCEPTED = "last share accepted to active"
COMMAND = "start of kluis unlock to active"
LIMIT_S = 0.5


def run(scale: Scale) -> Result:
    """Measure unlocks, each with a fresh restart."""
    accepted: list[float] = []
    command: list[float] = []
    with workshop() as folder:
        kluis = Kluis(folder / "kluis")
        kluis.serve()
        server = OpenBao(folder / "openbao", transit_seal(kluis.access))
        server.init()
        for number in range(scale.unlocks + 1):
            times = _unlock(kluis, server)
            if number:  # the first round warms up
                accepted.append(times[0])
                command.append(times[1])
            say(f"  round {number} of {scale.unlocks}")
    series = (Series(ACCEPTED, "s", tuple(accepted)), Series(COMMAND, "s", tuple(command)))
    target = Target(ACCEPTED, "at most", LIMIT_S, "s", series[0].spread.median)
    slowest = Target(f"{ACCEPTED}, slowest", "at most", LIMIT_S, "s", series[0].spread.most)
    return Result("unlock", "Unlock to active", series, targets=(target, slowest))


def _unlock(kluis: Kluis, server: OpenBao) -> tuple[float, float]:
    """Seconds until active: from the last share, and from the start of the command."""
    kluis.lock()
    server.kill9()
    server.start()
    server.moment_of(503)
    wait_until(lambda: kluis.metric("kluis_held_requests") == 1, "the decrypt is held")
    opened: list[float] = []
    # Daemons: when the command fails nobody waits for them.
    watch = threading.Thread(
        target=lambda: opened.append(moment_of(kluis.health, 200, kluis.running.check)),
        daemon=True,
    )
    active: list[float] = []
    see = threading.Thread(target=lambda: active.append(server.moment_of(200)), daemon=True)
    watch.start()
    see.start()
    started_s = time.perf_counter()
    kluis.unlock()
    watch.join(60)
    see.join(60)
    return active[0] - opened[0], active[0] - started_s

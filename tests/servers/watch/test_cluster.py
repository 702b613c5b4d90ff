"""A raft cluster of three stock servers: all killed, all back, and one of them hangs meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from kluis.servers.watch.states import Condition
from tests.servers.watch.scene import kept, pinned, scene, server, until
from tests.support.cluster import cluster


@pytest.mark.timeout(180)
def test_all_nodes_killed_and_all_back(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        issued = made.nodes[0].tls
        assert issued is not None
        one = scene(server(made.addresses, pinned(made.authority, issued)), kept(made.made.shares))

        def well(number: int) -> bool:
            return one.node(number=number).condition is Condition.UNSEALED

        def active() -> int:
            nodes = one.watcher.views()["vault"].nodes.values()
            return sum(node.active for node in nodes)

        async def play() -> None:
            async with one.watching():
                await until(lambda: active() == 1 and all(map(well, range(3))), one.watcher.views)
                assert one.heard.count == 0
                assert one.heard.recoveries == []

                made.kill9()
                await until(lambda: not any(map(well, range(3))), one.watcher.views)
                made.start()
                await until(lambda: active() == 1 and all(map(well, range(3))), one.watcher.views)
                # one for all nodes; and one more where they were so slow that they elected twice
                assert len(one.heard.recoveries) in (1, 2)

                before = len(one.heard.sendings)
                os.kill(made.nodes[2].pid, signal.SIGSTOP)
                for node in made.nodes[:2]:
                    node.kill9()
                    node.start()

                def back() -> bool:
                    given = {address for _, address, _ in one.heard.sendings[before:]}
                    return given == {*made.addresses[:2]} and well(0) and well(1) and active() >= 1

                await until(back, one.watcher.views)
                await one.becomes(Condition.HUNG, number=2)
                os.kill(made.nodes[2].pid, signal.SIGCONT)
                await until(lambda: well(2), one.watcher.views)
                assert not one.heard.alarms

        asyncio.run(play())

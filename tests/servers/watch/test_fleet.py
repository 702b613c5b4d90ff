"""One real server among a hundred simulated ones, of which twenty hang."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from kluis.servers.declared import Identity, Listed, Server
from kluis.servers.tls import ServerTls
from kluis.servers.watch.states import Condition
from tests.servers.watch.scene import KEY, Scene, kept, pinned, server, until
from tests.support.bao import Bao
from tests.support.fleet import fleet
from tests.support.tls import Authority

COUNT, HUNG = 100, 20


def test_a_restart_is_noticed_and_unsealed_while_a_hundred_are_watched(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("vault", "127.0.0.1")
    with Bao(tmp_path / "bao", tls=issued) as bao, fleet(COUNT, hung=HUNG) as addresses:
        shares = bao.init(5, 3).shares
        servers = {"vault": server([bao.address], pinned(authority, issued))}
        for number, address in enumerate(addresses):
            name = f"server{number}"
            declared = (ServerTls(), Identity(3, 5), KEY)
            servers[name] = Server(name, Listed((address,)), *declared)
        scene = Scene(servers, kept(shares))

        def conditions() -> Counter[Condition]:
            views = scene.watcher.views().values()
            return Counter(node.condition for view in views for node in view.nodes.values())

        def all_known() -> bool:
            found = conditions()
            return found == {Condition.UNSEALED: COUNT - HUNG + 1, Condition.HUNG: HUNG}

        async def play() -> None:
            async with scene.watching():
                await until(all_known, conditions)
                recoveries = len(scene.heard.recoveries)
                bao.kill9()
                bao.start()
                await until(lambda: len(scene.heard.recoveries) > recoveries, scene.node)
                await scene.becomes(Condition.UNSEALED)
                assert {name for name, _, _ in scene.heard.sendings} == {"vault"}

        asyncio.run(play())

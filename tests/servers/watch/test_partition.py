"""A raft cluster of three stock servers that do not reach each other, while kluis reaches them all.

The cut is inside the cluster only: between the ports by which its nodes talk to each other.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from kluis.servers.watch import judging
from kluis.servers.watch.states import Alarm, Condition
from tests.servers.watch.scene import Scene, kept, pinned, scene, server, until
from tests.support.cluster import Cluster, cluster


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as cluster_of_three:
        cluster_of_three.wait_voters()
        yield cluster_of_three


@pytest.fixture
def one(made: Cluster, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(judging, "LEADERLESS_S", 1.0)
    issued = made.nodes[0].tls
    assert issued is not None
    return scene(server(made.addresses, pinned(made.authority, issued)), kept(made.made.shares))


def active(one: Scene) -> list[int]:
    """Which nodes do the work, as kluis sees them."""
    return [number for number in range(3) if one.node(number=number).active]


async def well(one: Scene) -> int:
    """Wait until all nodes are as they should be; which one does the work."""

    def holds() -> bool:
        nodes = [one.node(number=number) for number in range(3)]
        fine = all((node.condition, node.alarm) == (Condition.UNSEALED, None) for node in nodes)
        return fine and len(active(one)) == 1

    await until(holds, one.watcher.views)
    return active(one)[0]


def test_the_others_go_on_and_the_one_that_was_cut_off_is_told_of(
    one: Scene, made: Cluster
) -> None:
    token = made.made.root_token

    async def play() -> None:
        async with one.watching():
            lone = await well(one)
            made.links.cut_off(lone)
            await one.becomes(Condition.UNSEALED, Alarm.NO_LEADER, number=lone)
            await until(lambda: active(one) not in ([], [lone]), one.watcher.views)
            made.nodes[active(one)[0]].kv_put(token, "it", {"is": "here"})
            assert one.heard.count == 0

            made.nodes[lone].kill9()
            made.nodes[lone].start()
            await until(lambda: one.heard.count == 3, one.watcher.views)
            await one.becomes(Condition.UNSEALED, Alarm.NO_LEADER, number=lone)
            assert made.nodes[lone].health() == 429

            made.links.heal()
            await well(one)
            assert made.nodes[lone].kv_get(token, "it") == {"is": "here"}
            assert [address for _, address, _ in one.heard.sendings] == [made.addresses[lone]]

    asyncio.run(play())


def test_a_node_that_joins_while_it_is_cut_off_is_waited_for(one: Scene, made: Cluster) -> None:
    """It took its shares, and says sealed and progress 0 until it has its cluster's data."""

    async def play() -> None:
        async with one.watching():
            number = (await well(one) + 1) % 3
            node = made.nodes[number]
            made.links.cut_off(number)
            node.kill9()
            shutil.rmtree(node.directory / "data")  # a new disk
            (node.directory / "data").mkdir()
            node.start()

            await until(lambda: "took the shares" in one.node(number=number).seen, one.node)
            status = node.must("GET", "sys/seal-status")
            assert (status["sealed"], status["progress"]) == (True, 0)
            assert (one.node(number=number).alarm, one.heard.count) == (None, 3)

            one.watcher.wake()  # a keyring was opened: it is tried once more, and answers an error
            await one.becomes(Condition.UNSEALING, Alarm.SHARES, number=number)
            assert "took the shares" in one.node(number=number).seen
            await asyncio.sleep(3)
            assert [count for _, _, count in one.heard.sendings] == [3, 3]

            made.links.heal()
            await well(one)
            assert one.heard.count == 6

    asyncio.run(play())


def test_the_last_of_three_nodes_is_unsealed_and_its_server_is_down(
    one: Scene, made: Cluster
) -> None:
    async def play() -> None:
        async with one.watching():
            last = await well(one)
            away = [node for node in made.nodes if node is not made.nodes[last]]
            for node in away:
                node.kill9()
            await one.becomes(Condition.UNSEALED, Alarm.NO_LEADER, number=last)
            assert one.watcher.views()["vault"].down_since_s is not None
            for node in away:
                node.start()
            await well(one)
            assert one.heard.recoveries
            assert one.heard.count == 6

    asyncio.run(play())

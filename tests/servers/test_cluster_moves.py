"""A cluster of three nodes from its first start to a seal that kluis serves.

``kluis server init`` makes one of the nodes; the others join it by themselves, and the watch of
``kluis serve`` unseals them. ``kluis server migrate --wait`` then moves the cluster as a person
does it: the standbys first, the active node by stepping down, and a last restart of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kluis.errors import ServiceError
from kluis.servers.tls import certificates, pin_of
from kluis.service.asking import ask
from tests.support.bao import Bao, Initialised
from tests.support.cluster import Cluster, fresh
from tests.support.house import CONFIGURATION, House, Service

KEPT = "homelab/of-it"


@dataclass
class Home:
    """A house that serves, and a cluster that it made."""

    house: House
    service: Service
    cluster: Cluster
    cluster_id: str

    @property
    def token(self) -> str:
        return self.cluster.made.root_token

    def told(self) -> dict[str, Any]:
        """Where the migration stands."""
        asked = (self.house.control_path(), "server-migration", {"server": "it"})
        try:
            return ask(*asked)
        except ServiceError:  # a look at a node that was just killed may be broken off
            return ask(*asked)

    def wait_place(self, place: str) -> None:
        """Wait until the migration stands there."""
        self.service.wait_for(lambda: self.told()["place"] == place, place, 60)

    def restart(self, node: Bao, file: str, stand: str) -> None:
        """Restart a node with the stanzas of a file, and wait until it stands so."""
        node.kill9()
        node.seal = (self.house.folder / "it-seal" / file).read_text("utf-8")
        node.write_config()
        node.start()

        def stands() -> bool:
            told = self.told()
            return bool(told["ended"] or told["nodes"][node.address]["stand"] == stand)

        self.service.wait_for(stands, f"{node.address} is {stand}", 60)

    def pushed(self) -> list[str]:
        """The nodes that the watch gave shares, each time again."""
        said = (json.loads(line) for line in self.service.log.splitlines())
        return [one["node"] for one in said if one["event"] == "shares sent"]


def table(new: Cluster) -> str:
    """``[servers.it]`` for these nodes, pinned."""
    issued = new.nodes[0].tls
    assert issued is not None
    pin = pin_of(certificates(issued.certificate)[0])
    return (
        f"\n[servers.it]\naddresses = {list(new.addresses)}\n"
        f'ca = "{new.authority.certificate}"\npin = "{pin}"\nunseal = "{KEPT}"\n'
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("moves")
    with fresh(folder / "cluster") as new:
        house = House(folder / "house", CONFIGURATION + table(new))
        house.apply()
        new.start()
        with house.serve() as service:
            service.wait_logged('"event": "opened"')
            new.wait_listening()
            told = house.json("server", "init", "it", "--yes", "--show-secrets")
            new.wait_unsealed()
            made = Initialised(told["secrets"]["root_token"], tuple(told["secrets"]["shares"]))
            whole = replace(new, made=made, threshold=told["secrets"]["threshold"])
            yield Home(house, service, whole, told["cluster_id"])


def test_a_fresh_cluster_is_made_at_one_node_and_the_watch_unseals_the_others(home: Home) -> None:
    whole = home.cluster
    statuses = [node.must("GET", "sys/seal-status") for node in whole.nodes]
    assert {str(status["cluster_id"]) for status in statuses} == {home.cluster_id}
    first, *others = whole.addresses
    assert [home.pushed().count(node) for node in others] == [1, 1]
    assert home.pushed().count(first) <= 1, "the command unseals it, unless the watch was quicker"
    assert home.house.json("watch", "--once")["state"] == "unsealed"


def test_it_is_moved_to_the_facade_node_by_node_and_works_all_the_time(home: Home) -> None:
    whole, house = home.cluster, home.house
    whole.wait_voters()
    active = whole.active
    standbys = [node for node in whole.nodes if node is not active]
    active.kv_put(home.token, "it", {"is": "here"})
    pushed = home.pushed()

    begun = house.kluis(
        *("server", "migrate", "it", "--to", "facade", "--issue", "--yes"),
        environment={"BAO_TOKEN": home.token},
    )
    assert begun.code == 2, begun
    assert "You restart its 3 nodes twice" in " ".join((begun.out + begun.err).split())
    with house.beside("server", "migrate", "it", "--wait") as process:
        for node in standbys:
            home.wait_place("restart")
            home.restart(node, "1-migrate.hcl", "carried")
            assert active.kv_get(home.token, "it") == {"is": "here"}
        home.wait_place("last")
        active.must("PUT", "sys/step-down", {}, home.token)
        home.wait_place("prove")
        for node in (active, *standbys):
            home.restart(node, "2-after.hcl", "returned")
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert "moved from shamir to facade, proven" in out
    whole.wait_unsealed()
    assert {str(node.must("GET", "sys/seal-status")["type"]) for node in whole.nodes} == {"transit"}
    assert whole.active.kv_get(home.token, "it") == {"is": "here"}
    assert home.pushed() == pushed, "the watch let it be"

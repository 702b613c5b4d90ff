"""A Shamir-sealed raft cluster of real stock OpenBao servers, with TLS.

with cluster(tmp_path) as made:      # three nodes, initialised 3 of 5, all unsealed
    made.kill9()                     # all of them
    made.start()
    made.links.cut_off(0)            # from the other nodes; whoever asks its API reaches it
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.support.bao import Bao, Initialised, free_port, wait_until
from tests.support.links import Links
from tests.support.tls import Authority, Issued

AUTOPILOT: Final = "sys/storage/raft/autopilot/configuration"
PEERS: Final = "sys/storage/raft/configuration"


@dataclass(frozen=True)
class Cluster:
    """Nodes of one cluster, what is between them, who vouches for them, and what the init gave."""

    nodes: Sequence[Bao]
    links: Links
    authority: Authority
    made: Initialised
    threshold: int

    @property
    def addresses(self) -> tuple[str, ...]:
        """``https://127.0.0.1:PORT`` of every node."""
        return tuple(node.address for node in self.nodes)

    def unseal(self) -> None:
        """Enter the shares at every node, and wait until all are unsealed and one is active."""
        for node in self.nodes:
            _unseal(node, self.made.shares[: self.threshold])
        self.wait_unsealed()

    def wait_unsealed(self, timeout_s: float = 60.0) -> None:
        """Wait until all nodes are unsealed, and one of them is active."""

        def unsealed() -> bool:
            found = [node.health() for node in self.nodes]
            return found.count(200) == 1 and found.count(429) == len(found) - 1

        wait_until(unsealed, "a cluster with one active node and only standbys beside", timeout_s)

    @property
    def active(self) -> Bao:
        """The node that does the work, as soon as there is one."""
        found: list[Bao] = []

        def works() -> bool:
            found.extend(node for node in self.nodes if node.health() == 200)
            return bool(found)

        wait_until(works, "an active node", 60.0)
        return found[0]

    def wait_voters(self, timeout_s: float = 60.0) -> None:
        """Wait until each node has a vote: one that just joined has none, for 10 s by default."""
        active, token = self.active, self.made.root_token
        active.must("POST", AUTOPILOT, {"server_stabilization_time": "1s"}, token)

        def voting() -> bool:
            peers = str(active.must("GET", PEERS, token=token)["data"])
            return peers.count("'voter': True") == len(self.nodes)

        wait_until(voting, "a cluster of voters", timeout_s)

    def kill9(self) -> None:
        """Kill all nodes, and wait until they are gone."""
        for node in self.nodes:
            node.kill9()

    def start(self) -> None:
        """Start all nodes, and return at once."""
        for node in self.nodes:
            node.start()

    def wait_listening(self) -> None:
        """Wait until all nodes answer, whatever their state."""
        for node in self.nodes:
            node.wait_listening()


@contextlib.contextmanager
def fresh(directory: Path, nodes: int = 3) -> Iterator[Cluster]:
    """New servers that are to become one cluster; none is started. They end with the block."""
    authority = Authority(directory / "ca")
    issued = authority.issue("node", "localhost", "127.0.0.1")
    ports = [free_port() for _ in range(nodes)]
    members = [_node(directory, number, ports, authority, issued) for number in range(nodes)]
    with contextlib.ExitStack() as stack:
        links = stack.enter_context(Links(members))
        for member in members:
            stack.callback(member.kill9)
        yield Cluster(members, links, authority, Initialised("", ()), 0)


@contextlib.contextmanager
def cluster(
    directory: Path, nodes: int = 3, *, shares: int = 5, threshold: int = 3
) -> Iterator[Cluster]:
    """A cluster with all nodes unsealed, one of them active. Its nodes end with the block."""
    with fresh(directory, nodes) as new:
        first, *others = new.nodes
        first.start()
        first.wait_listening()
        made = first.init(shares, threshold)
        _unseal(first, made.shares[:threshold])
        first.wait_active()
        for member in others:  # which find the leader at their first try
            member.start()
        with ThreadPoolExecutor(nodes) as pool:
            list(pool.map(lambda member: _join(member, made.shares[:threshold]), others))
        whole = replace(new, made=made, threshold=threshold)
        whole.wait_unsealed()
        yield whole


def _node(
    directory: Path, number: int, ports: Sequence[int], authority: Authority, issued: Issued
) -> Bao:
    others = [
        f'    leader_api_addr = "https://127.0.0.1:{port}"\n'
        f'    leader_ca_cert_file = "{authority.certificate}"\n'
        for port in ports
        if port != ports[number]
    ]
    return Bao(directory / f"node{number}", port=ports[number], tls=issued, join=others)


def _join(member: Bao, shares: Sequence[str]) -> None:
    """A node that found the leader says that it is initialised; then it takes shares."""
    member.wait_listening()
    wait_until(
        lambda: member.must("GET", "sys/seal-status").get("initialized") is True,
        f"{member.address} has found the leader",
        60.0,
    )
    _unseal(member, shares)


def _unseal(member: Bao, shares: Sequence[str]) -> None:
    for share in shares:
        member.must("PUT", "sys/unseal", {"key": share})

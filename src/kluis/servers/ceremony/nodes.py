"""The nodes of a server, asked once, side by side: who is there, and in what state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from kluis.addresses import host_of, is_loopback
from kluis.errors import ServerError, ServerUnreachable, UsageError, WrongServer
from kluis.servers.client import SealStatus, ServerClient
from kluis.servers.declared import Server


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its seal, or why that is not known; and whether it is the active one."""

    address: str
    status: SealStatus | None = None
    failure: ServerError | None = None
    active: bool = False


async def survey(server: Server) -> tuple[Node, ...]:
    """All nodes of a server, in the order of their addresses.

    Raises UsageError when a node can't be told from another server, WrongServer when one is not
    the server that it should be, and ServerUnreachable when there is no node.
    """
    addresses = await server.discovery.addresses()
    for address in addresses:
        refuse_unknown(server, address)
    nodes = await asyncio.gather(*(_ask(server, address) for address in addresses))
    for node in nodes:
        if isinstance(node.failure, WrongServer):
            raise node.failure
    if not nodes:
        raise ServerUnreachable(
            f"{server.name} has no node now",
            "nothing runs where kluis.toml says that its nodes are",
            "start the server, or correct its addresses",
        )
    return tuple(nodes)


async def _ask(server: Server, address: str) -> Node:
    try:
        async with ServerClient(address, tls=server.tls, quiet=True) as client:
            status = await client.seal_status()
            active = not status.sealed and (await client.health()).active
            return Node(address, status, active=active)
    except ServerError as error:
        return Node(address, failure=error)


def refuse_unknown(server: Server, address: str) -> None:
    """Shares and tokens go to a server whose key is pinned, or to one on loopback."""
    if address.startswith("http:"):
        if not is_loopback(host_of(address)):
            raise UsageError(
                f"{address} is not asked over plain http",
                "shares and tokens could be read on the way",
                "give the server a certificate, and name it with https://",
            )
    elif server.tls.pin is None:
        raise UsageError(
            f"nobody pinned the key of {server.name}",
            f"{address} could be another server",
            f"kluis server add {server.name} shows its certificate and pins it",
        )


def first_answering(nodes: Sequence[Node]) -> tuple[str, SealStatus]:
    """The node to talk to: the active one, an unsealed or initialised one, or the first there is.

    Raises the ServerError of the first node when none answers.
    """
    known = [(node, node.status) for node in nodes if node.status is not None]
    if not known:
        raise next(node.failure for node in nodes if node.failure is not None)
    node, status = min(
        known, key=lambda one: (not one[0].active, one[1].sealed, not one[1].initialized)
    )
    return node.address, status


def active(server: Server, nodes: Sequence[Node], cluster_id: str) -> tuple[str, SealStatus]:
    """The active node of the cluster that is meant. Raises ServerError, WrongServer.

    Rekeys and the like are in its memory; a standby of an OpenBao answers some calls by itself.
    """
    address, status = first_answering(nodes)
    if not status.initialized:
        raise ServerError(
            f"{server.name} is not initialised",
            "there is nothing in it",
            f"kluis server init {server.name}; if it lost its storage, restore a snapshot",
        )
    if status.sealed:
        raise ServerError(
            f"{server.name} is sealed",
            "a sealed server does nothing of this",
            "kluis watch unseals it; or see its log",
        )
    refuse_other_cluster(server, status, cluster_id)
    if not any(node.active for node in nodes):
        raise ServerUnreachable(
            f"no active node of {server.name} can be reached",
            "the nodes that answer are standbys; a rekey and a root token need the active one",
            "see the logs of its nodes, or add the address of the active one",
        )
    return address, status


def refuse_other_cluster(server: Server, status: SealStatus, cluster_id: str) -> None:
    """Compare the cluster's id with the one that is known, where one is. Raises WrongServer."""
    for known in (cluster_id, server.identity.cluster_id):
        if known and status.cluster_id != known:
            raise WrongServer(
                f"{server.name} is another cluster than the one that is known",
                f"its id is {status.cluster_id or 'empty'}, not {known}",
                "check its address; what is kept for it was not used",
            )

"""A migration sends shares and tokens: only to the server that it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from kluis.errors import KluisError, UsageError, WrongServer
from kluis.keyring.custody import Custody
from kluis.servers.client import SealStatus
from kluis.servers.declared import Identity, Listed, Server
from kluis.servers.migration.driver import Nodes
from kluis.servers.tls import ServerTls
from kluis.service.migration.checks import _refuse_strange
from tests.support.pretender import CLUSTER_ID, SEALED, Pretender, always

CUSTODY = Custody("unseal", 3, tuple(bytes([n]) * 33 for n in range(5)))
ID, OTHER_ID = CLUSTER_ID, CLUSTER_ID.replace("4", "5")
SEAL = SealStatus("shamir", True, False, 3, 5, 0, "", "2.7.2", False, False, "raft", "", ID)


async def refused(
    server: Server, cluster_id: str, call: Callable[[Nodes], Awaitable[object]]
) -> KluisError:
    """The error of a call."""
    async with Nodes(server, cluster_id) as nodes:
        with pytest.raises(KluisError) as caught:
            await call(nodes)
        return caught.value


def test_a_server_that_nobody_pinned_is_not_even_asked() -> None:
    server = Server("vault", Listed(("https://vault.example:8200",)), ServerTls())
    address = "https://vault.example:8200"
    for call in (
        lambda nodes: nodes.look(),
        lambda nodes: nodes.give(address, CUSTODY, migrate=True),
        lambda nodes: nodes.disabled_left([address], "s.token"),
    ):
        error = asyncio.run(refused(server, "", call))
        assert isinstance(error, UsageError)
        assert error.seen == "nobody pinned the key of vault"


def test_shares_that_are_known_to_be_of_another_cluster_are_not_sent() -> None:
    with Pretender(always(SEALED)) as pretender:
        server = Server("vault", Listed((pretender.address,)), ServerTls())
        others = replace(CUSTODY, cluster_id=OTHER_ID)
        error = asyncio.run(
            refused(server, CLUSTER_ID, lambda n: n.give(pretender.address, others, migrate=True))
        )
        assert isinstance(error, WrongServer)
        assert not pretender.shares


@pytest.mark.parametrize(
    ("declared", "kept", "refused"),
    [
        (None, CUSTODY, False),
        (None, replace(CUSTODY, cluster_id=ID), False),
        (ID, replace(CUSTODY, cluster_id=OTHER_ID), False),
        (None, replace(CUSTODY, cluster_id=OTHER_ID), True),
        (OTHER_ID, CUSTODY, True),
        (None, replace(CUSTODY, threshold=2), True),
    ],
)
def test_nothing_is_begun_with_shares_of_another_server(
    declared: str | None, kept: Custody, refused: bool
) -> None:
    server = Server("vault", Listed(()), ServerTls(), Identity(cluster_id=declared))
    if not refused:
        _refuse_strange(server, SEAL, kept)
        return
    with pytest.raises(WrongServer, match="not those of vault"):
        _refuse_strange(server, SEAL, kept)

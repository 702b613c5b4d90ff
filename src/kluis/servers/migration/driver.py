"""Looks at the nodes of a server that migrates, and gives them shares."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from yarl import URL

from kluis.errors import (
    ServerAnswered,
    ServerError,
    ServerHung,
    ServerUnreachable,
    UsageError,
    WrongServer,
)
from kluis.keyring.custody import Custody
from kluis.keyring.migrations import MAX_NODES
from kluis.servers.ceremony.nodes import refuse_unknown
from kluis.servers.client import SealStatus, ServerClient
from kluis.servers.declared import Server
from kluis.servers.migration.standing import Presence, Seen

LOOK_S: Final = 5.0
CONNECT_S: Final = 2.0
PUSH_S: Final = 60.0  # the seals' KMS are asked in between, each with retries of its own
_FAULTS: Final = 500


@dataclass(frozen=True, slots=True)
class Look:
    """One node: what it shows, and all it said of its seal; None where it said nothing."""

    seen: Seen
    status: SealStatus | None = None


class Nodes:
    """The nodes of one server; used as ``async with``. Each look finds them anew."""

    def __init__(self, server: Server, cluster_id: str = "") -> None:
        """``cluster_id`` is what it must say once it is unsealed; empty where it is not known."""
        self._server = server
        self.cluster_id = server.identity.cluster_id or cluster_id
        """As it was known, or as the server told it first."""
        self._clients: dict[str, ServerClient] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def look(self) -> list[Look]:
        """Every node as it is now. Raises WrongServer, and UsageError when there is none."""
        addresses = sorted(set(await self._server.discovery.addresses()))
        if not 0 < len(addresses) <= MAX_NODES:
            raise UsageError(
                f"{len(addresses)} nodes of {self._server.name} are known",
                f"a server that is moved has at least one, and at most {MAX_NODES}",
                "see that it runs, and where its addresses in kluis.toml lead",
            )
        return list(await asyncio.gather(*(self._look_at(address) for address in addresses)))

    async def _look_at(self, address: str) -> Look:
        try:
            client = await self._client(address)
            status = await client.seal_status()
            active_time = "" if status.sealed else await _active_time(client)
        except ServerUnreachable:
            cut = await _listens(address)  # a connection that was cut is no restart
            return Look(Seen(address, Presence.UNCLEAR if cut else Presence.AWAY))
        except (ServerHung, ServerAnswered):
            return Look(Seen(address, Presence.UNCLEAR))
        self._refuse_stranger(address, status)
        seen = Seen(
            address=address,
            presence=Presence.THERE,
            seal=status.seal_type,
            sealed=status.sealed,
            migration=status.migration,
            active=bool(active_time),
            active_time=active_time,
        )
        return Look(seen, status)

    async def _client(self, address: str) -> ServerClient:
        if address not in self._clients:
            refuse_unknown(self._server, address)
            client = ServerClient(address, tls=self._server.tls, timeout_s=LOOK_S)
            self._clients[address] = await self._open.enter_async_context(client)
        return self._clients[address]

    def _refuse_stranger(self, address: str, status: SealStatus) -> None:
        """It tells its cluster only while it is unsealed."""
        known, told = self.cluster_id, status.cluster_id
        self.cluster_id = known or told
        if not status.initialized or (known and told and told != known):
            raise WrongServer(
                f"{address} is not {self._server.name}",
                f"its cluster id is {told}, not {known}" if told else "it was never initialised",
                "check its address and its storage; it got no shares",
            )

    async def give(self, address: str, custody: Custody, *, migrate: bool) -> None:
        """Give a node as many shares as it needs. Raises WrongServer or ServerError."""
        if custody.cluster_id and self.cluster_id not in ("", custody.cluster_id):
            raise WrongServer(
                f"what is kept are shares of the cluster {custody.cluster_id}",
                f"{self._server.name} is of the cluster {self.cluster_id}",
                "name the key that keeps its own shares; nothing was sent",
            )
        client = await self._client(address)
        status = await client.seal_status()
        if status.threshold != custody.threshold:
            raise WrongServer(
                f"{address} needs {status.threshold} shares, and {custody.threshold} are kept",
                "they belong to another server, or were made anew there",
                "import those of this server, with kluis key import",
            )
        for share in custody.some():
            if not status.sealed:
                break
            status = await self._give(client, address, share, migrate)

    async def _give(
        self, client: ServerClient, address: str, share: str, migrate: bool
    ) -> SealStatus:
        try:
            return await client.unseal(share, migrate=migrate, timeout_s=PUSH_S)
        except ServerAnswered as error:
            if error.status >= _FAULTS:
                raise
            raise ServerAnswered(
                f"{address} refused the shares",
                "they are not its own, or the KMS of a seal failed",
                "check that the old KMS can still be reached; nothing was changed",
                error.status,
            ) from None

    async def disabled_left(self, addresses: Iterable[str], token: str) -> bool:
        """Whether one of these has a disabled seal in its configuration. Raises ServerError."""
        return any(await asyncio.gather(*(self._disabled_at(one, token) for one in addresses)))

    async def _disabled_at(self, address: str, token: str) -> bool:
        client = await self._client(address)
        answer = await client.call("GET", "sys/config/state/sanitized", token=token)
        data = answer.body.get("data")
        seals = data.get("seals") if isinstance(data, dict) else None
        return isinstance(seals, list) and any(_is_disabled(seal) for seal in seals)


async def _listens(address: str) -> bool:
    """Whether anybody takes connections there."""
    url = URL(address)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(url.host, url.port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _is_disabled(seal: object) -> bool:
    return isinstance(seal, dict) and seal.get("disabled") is True


async def _active_time(client: ServerClient) -> str:
    """Since when a node is active; empty for a standby. It changes with every restart."""
    try:
        answer = await client.call("GET", "sys/leader")
    except ServerError:
        return ""
    told = answer.body.get("active_time")
    if answer.body.get("is_self") is not True or not isinstance(told, str):
        return ""
    return "".join(char for char in told[:64] if "!" <= char <= "~")


def seen(looks: Sequence[Look]) -> list[Seen]:
    """What was seen, without the rest."""
    return [look.seen for look in looks]

"""One server's ceremony: who is at it, what is kept for it, and where it stands."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from kluis.errors import UsageError
from kluis.keyring.custody import Custody
from kluis.keyring.strict import JSON
from kluis.servers.ceremony import nodes, standing
from kluis.servers.ceremony.standing import Seal, Stand
from kluis.servers.client import ServerClient
from kluis.servers.declared import KeyPath, Server
from kluis.service import custody, servers
from kluis.service.house import House
from kluis.service.operations import Args

EVENT: Final = "server-init"


@dataclass
class Underway:
    """What this process remembers of ceremonies: who is at one, and what no keyring took yet."""

    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    unkept: dict[str, Custody] = field(default_factory=dict)


_UNDERWAY: WeakKeyDictionary[House, Underway] = WeakKeyDictionary()


def underway(house: House) -> Underway:
    """The ceremonies of this house."""
    return _UNDERWAY.setdefault(house, Underway())


def at_work(house: House, name: str) -> asyncio.Lock:
    """Held by the one who is at a server's ceremony."""
    return underway(house).locks.setdefault(name, asyncio.Lock())


@dataclass(frozen=True)
class Ceremony:
    """A server's ceremony as it stands at the beginning of a step."""

    house: House
    server: Server
    seal: Seal
    kept: Custody | None
    stand: Stand

    @property
    def path(self) -> KeyPath:
        """Where its shares are kept."""
        return self.seal.path

    @property
    def to_be_made(self) -> bool:
        """Whether its init is still to come."""
        return self.stand in (Stand.NEW, Stand.BEGUN)

    def client(self) -> ServerClient:
        """The node that it is about. Once it was shown shares its words are not repeated."""
        return ServerClient(self.seal.address, tls=self.server.tls, quiet=not self.to_be_made)

    def custody(self) -> Custody:
        """What is kept. Raises UsageError before the init."""
        if self.kept is None or self.to_be_made:
            raise UsageError(
                f"{self.server.name} is not initialised yet",
                "this step comes after that",
                f"kluis server init {self.server.name}",
            )
        return self.kept

    def root_token(self) -> str:
        """The root token of the init. Raises UsageError once it is not kept any more."""
        if not (token := self.custody().root_token):
            raise UsageError(
                f"the root token of {self.server.name} is not kept any more",
                "it was revoked, or the shares were imported; policies and devices need one",
                f"kluis server generate-root {self.server.name} makes one, for use with bao",
            )
        return token

    async def keep(self, kept: Custody) -> None:
        """Write what is to be kept. Raises Locked, StoreError, AuditError."""
        await keep(self.house, self.path, kept, EVENT)


async def keep(house: House, path: KeyPath, kept: Custody, event: str) -> None:
    """Write what is to be kept for a server. Raises Locked, StoreError, AuditError."""
    async with house.changing:
        custody.keep(house, path, kept, event)


async def declared(house: House, name: str) -> Server:
    """The server of a name; kluis.toml is read again when it is not known. Raises UsageError."""
    if name not in house.blueprint.servers:
        async with house.changing:
            house.redraw()
    return servers.declared(house, name)


async def begin(house: House, server: Server) -> Ceremony:
    """How it stands now. Raises KluisError where a person has to do something first."""
    found = await nodes.survey(server)
    seal = standing.seal_of(server, found)
    kept = await kept_if_any(house, seal.path)
    late = underway(house).unkept.pop(server.name, None)
    if (
        late is not None
        and kept is not None
        and (kept.step, kept.attempt) == ("begun", late.attempt)
    ):
        underway(house).unkept[server.name] = late  # until it is kept, it stays remembered
        await keep(house, seal.path, kept := late, EVENT)
        del underway(house).unkept[server.name]
    return Ceremony(house, server, seal, kept, standing.stand(server, seal, kept, found))


async def kept_if_any(house: House, path: KeyPath) -> Custody | None:
    """What is kept under a key. Raises Locked; a command on its own asks the anchors first."""
    guard = house.guard(path.keyring)
    if not house.serving:
        await guard.try_open()
    return custody.kept_if_any(house, path)


def number(args: Args, name: str) -> int | None:
    """An argument that is a number of shares, if it is there. Raises UsageError."""
    value: JSON = args.get(name)
    if isinstance(value, bool) or not isinstance(value, int | None):
        raise UsageError(f"{name} is no number", "it counts shares", "give a whole number")
    return value

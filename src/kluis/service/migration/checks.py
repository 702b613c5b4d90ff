"""Whether a server can be moved to another seal: all that can be known before it is begun."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kluis.errors import ServerError, UsageError, WrongServer
from kluis.keyring.custody import Custody
from kluis.keyring.migrations import SEAL_PATTERN
from kluis.servers.client import SealStatus
from kluis.servers.declared import KeyPath, Server
from kluis.servers.migration.driver import Look, Nodes
from kluis.service import custody
from kluis.service.house import House
from kluis.service.migration.targets import Target, is_same_key, opened, target
from kluis.service.operations import Args, text
from kluis.service.servers import declared


@dataclass(frozen=True, slots=True)
class Checked:
    """A move that can be begun: of a server that works, with seal ``source``.

    ``active_time`` is what its active node said. ``shares`` is where those are kept that move it;
    None for a re-point, which needs none.
    """

    server: Server
    source: str
    storage: str
    nodes: tuple[str, ...]
    active: str
    active_time: str
    target: Target
    shares: KeyPath | None
    threshold: int = 0

    @property
    def repoint(self) -> bool:
        """Whether it keeps its seal's key, and only asks another one for it."""
        return self.shares is None

    @property
    def keyring(self) -> str:
        """Where the migration is on record."""
        path = self.shares or self.target.key
        return "" if path is None else path.keyring


async def check(house: House, args: Args) -> Checked:
    """See that a server can be moved as asked. Raises KluisError; nothing is changed."""
    server = declared(house, text(args, "server"))
    async with Nodes(server) as nodes:
        looks = await nodes.look()
    active, status = _whole(server, looks)
    to = await target(house, server.name, args)
    _refuse_odd(server, status)
    _refuse_pointless(server, status, to)
    shares, threshold = None, 0
    both_transit = status.seal_type == "transit" and to.to == "facade"
    if not (both_transit and to.key is not None and is_same_key(house, to.key, args)):
        shares, kept = await _shares(house, server, status.seal_type)
        _refuse_strange(server, status, kept)
        threshold = kept.threshold
    return Checked(
        server=server,
        source=status.seal_type,
        storage=status.storage_type,
        nodes=tuple(look.seen.address for look in looks),
        active=active.seen.address,
        active_time=active.seen.active_time,
        target=to,
        shares=shares,
        threshold=threshold,
    )


def _whole(server: Server, looks: Sequence[Look]) -> tuple[Look, SealStatus]:
    """The active node. Nothing is begun with a server of which a part does not work."""
    for look in looks:
        if look.status is None or look.status.sealed or look.status.migration:
            raise ServerError(
                f"{look.seen.address} is not unsealed",
                f"{server.name} is moved only while all of its nodes work",
                "unseal it, or take a node that is gone out of kluis.toml",
            )
    for look in looks:
        if look.seen.active and look.status is not None:
            return look, look.status
    raise ServerError(
        f"no node of {server.name} is active",
        "it is choosing one just now, or its active node is not in kluis.toml",
        "try again in a moment; all its nodes belong into kluis.toml",
    )


def _refuse_odd(server: Server, status: SealStatus) -> None:
    if not re.fullmatch(SEAL_PATTERN, status.seal_type):
        raise ServerError(
            f"{server.name} does not tell the type of its seal",
            "OpenBao and Vault do",
            "check its address",
        )


def _refuse_pointless(server: Server, status: SealStatus, to: Target) -> None:
    """OpenBao has the static seal since 2.4. Vault's versions begin with 1, and it has none."""
    if status.seal_type == to.seal == "shamir":
        raise UsageError(
            f"{server.name} is sealed by Shamir's shares already",
            "there is nothing to do",
            "kluis server migrate --status says where the last migration stands",
        )
    if status.seal_type == to.seal == "static":
        raise UsageError(
            f"{server.name} has a static seal already",
            "from one to another goes a new key in the same stanza, with the old as previous_key",
            "to come to a key of kluis, go by --to facade or --to shamir",
        )
    numbers = [int(number) for number in re.findall(r"\d{1,6}", status.version)[:2]]
    if to.seal == "static" and numbers < [2, 4]:
        raise UsageError(
            f'a server of version {status.version} knows no seal "static"',
            "OpenBao has it since 2.4, and Vault has it not",
            "use --to facade",
        )


async def _shares(house: House, server: Server, source: str) -> tuple[KeyPath, Custody]:
    """The shares, or recovery keys, that move it, and where they are kept."""
    purpose = "unseal" if source == "shamir" else "recovery"
    for path in (server.unseal, server.recovery):
        if path is None:
            continue
        await opened(house, path.keyring)
        kept = custody.kept_if_any(house, path)
        if kept is not None and kept.purpose == purpose:
            return path, _settled(path, kept)
    what, more = ("unseal shares", "") if source == "shamir" else ("recovery keys", " --recovery")
    raise UsageError(
        f"no {what} of {server.name} are kept",
        f"a server with a seal of type {source} is moved with them",
        f'say {purpose} = "KEYRING/KEY" in [servers.{server.name}], and import them:'
        f" kluis key import KEYRING/KEY --shares -{more}",
    )


def _settled(path: KeyPath, kept: Custody) -> Custody:
    if kept.step or kept.next is not None or not kept.shares:
        raise UsageError(
            f"a ceremony with {path} is not over",
            "its shares may be replaced any moment",
            "let it end first: run the command again that began it",
        )
    return kept


def _refuse_strange(server: Server, status: SealStatus, kept: Custody) -> None:
    known = server.identity.cluster_id or kept.cluster_id
    means = ""
    if status.threshold != kept.threshold:
        means = f"it needs {status.threshold} of them, and {kept.threshold} are kept as enough"
    elif known and status.cluster_id != known:
        means = f"its cluster id is {status.cluster_id}, not {known}"
    if means:
        raise WrongServer(
            f"the shares that are kept are not those of {server.name}",
            means,
            "correct its addresses, or import its own shares",
        )

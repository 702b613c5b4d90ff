"""A server as kluis.toml declares it, as an object; compose.py makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from kluis.servers.tls import ServerTls


class KeyPath(NamedTuple):
    """A key of kind ``unseal-shares``, by its keyring and its name."""

    keyring: str
    key: str

    def __str__(self) -> str:
        return f"{self.keyring}/{self.key}"


class Discovery(Protocol):
    """Where the nodes of a server are now."""

    async def addresses(self) -> Sequence[str]:
        """Addresses like ``https://10.0.0.7:8200``; each is one node.

        Raises KluisError when they can't be found out; then the last known ones hold.
        """
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """Nodes by their addresses, as written."""

    nodes: tuple[str, ...]

    async def addresses(self) -> Sequence[str]:
        """The same at any time."""
        return self.nodes


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server must be before it gets a share, and after. None: not known, not compared."""

    threshold: int | None = None
    shares: int | None = None
    cluster_id: str | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """One server, with all nodes of its cluster.

    ``unseal`` has the shares to push, ``recovery`` the recovery keys of one with an auto seal.
    ``on_seal`` says whether a seal by a person's hand is let be. ``wake`` names the hooks to run
    when it is back.
    """

    name: str
    discovery: Discovery
    tls: ServerTls
    identity: Identity = Identity()
    unseal: KeyPath | None = None
    recovery: KeyPath | None = None
    on_seal: Literal["hold", "unseal"] = "hold"
    wake: tuple[str, ...] = ()

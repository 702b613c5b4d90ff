"""Where the making of a server stands: what is kept and what the server says, side by side.

| kept     | server          | then                                                   |
|----------|-----------------|--------------------------------------------------------|
| nothing  | not initialised | NEW: it can be initialised                             |
| nothing  | initialised     | somebody else did that: refused                        |
| begun    | not initialised | BEGUN: the init did not happen; it is done now         |
| begun    | initialised     | the answer was lost: refused, the storage must be emptied |
| kept     | initialised     | KEPT: goes on from there                               |
| other    | initialised     | DONE                                                   |
| any share | not initialised | the storage was lost: refused                         |

Nothing here asks anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kluis.errors import ChangeRefused, InitLost, ServerUnreachable, UsageError
from kluis.keyring.custody import MAX_SHARES, Custody, Purpose
from kluis.servers.ceremony.nodes import Node, first_answering
from kluis.servers.client import SealStatus
from kluis.servers.declared import KeyPath, Server

DEFAULT_SHARES = 5
DEFAULT_THRESHOLD = 3


class Stand(StrEnum):
    """How far a server's making is."""

    NEW = "new"
    BEGUN = "begun"
    KEPT = "kept"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Seal:
    """Which node is initialised, what its seal is, and where its shares are kept."""

    address: str
    status: SealStatus
    purpose: Purpose
    path: KeyPath


def seal_of(server: Server, nodes: Sequence[Node]) -> Seal:
    """The node to initialise, or one that is. Raises ServerError or UsageError."""
    address, status = first_answering(nodes)
    purpose: Purpose = "unseal" if status.seal_type == "shamir" else "recovery"
    path = server.unseal if purpose == "unseal" else server.recovery
    if path is None:
        what = "shares" if purpose == "unseal" else "recovery keys"
        raise UsageError(
            f"{server.name} has a seal of type {status.seal_type}, and no place for its {what}",
            f"kluis.toml names none: {purpose} is missing in [servers.{server.name}]",
            f'add {purpose} = "KEYRING/{server.name}", with the name of your keyring',
        )
    return Seal(address, status, purpose, path)


def stand(server: Server, seal: Seal, kept: Custody | None, nodes: Sequence[Node]) -> Stand:
    """Where it stands. Raises KluisError where a person has to do something first."""
    if kept is None:
        if seal.status.initialized:
            raise _by_somebody_else(server, seal)
        return Stand.NEW
    if kept.purpose != seal.purpose:
        raise _other_seal(server, seal, kept)
    if kept.step == "begun":
        if seal.status.initialized:
            raise init_lost(server, seal)
        _refuse_absent(server, kept, nodes)
        return Stand.BEGUN
    if not seal.status.initialized:
        raise _emptied(server, seal)
    return Stand.KEPT if kept.step == "kept" else Stand.DONE


def _by_somebody_else(server: Server, seal: Seal) -> UsageError:
    return UsageError(
        f"{server.name} is initialised already, and not by kluis",
        f"whoever did it has its shares; {seal.path} does not",
        f"take them in: kluis key import {seal.path} --shares -",
    )


def _other_seal(server: Server, seal: Seal, kept: Custody) -> UsageError:
    kinds = {"unseal": "the shares of a Shamir seal", "recovery": "recovery keys"}
    return UsageError(
        f"{seal.path} holds {kinds[kept.purpose]}, and {server.name} has another seal",
        f"its seal is of type {seal.status.seal_type}",
        f"name another key as {seal.purpose} in [servers.{server.name}] of kluis.toml",
    )


def init_lost(server: Server, seal: Seal) -> InitLost:
    """What to say of a server whose init was answered to nobody, or was refused half-way."""
    return InitLost(
        f"{server.name} is initialised, but the answer to that was lost; nobody has its shares",
        "nothing is in it: kluis uses a server only once its shares are kept",
        f"stop it, empty its storage (for raft the folder that path names; for postgresql its"
        f" table), start it, and run kluis server init {server.name} again. If somebody else"
        f" initialised it meanwhile: kluis key import {seal.path} --shares - --replace",
    )


def _refuse_absent(server: Server, kept: Custody, nodes: Sequence[Node]) -> None:
    """An init that was begun at a node that is away now may have happened there."""
    away = {node.address for node in nodes if node.status is None}
    gone = kept.node not in {node.address for node in nodes}
    if kept.node in away or (gone and away):
        raise ServerUnreachable(
            f"an init of {server.name} was begun at {kept.node or 'another node'}",
            "that node may be initialised, and can't be asked now; two nodes that were both"
            " initialised are no cluster",
            f"start it, and run kluis server init {server.name} again",
        )


def _emptied(server: Server, seal: Seal) -> ChangeRefused:
    return ChangeRefused(
        f"{server.name} says that it was never initialised, but {seal.path} holds its shares",
        "it lost its storage, or it is another server",
        f"restore its storage, or a snapshot. To begin anew name another key as {seal.purpose}"
        f" in [servers.{server.name}] of kluis.toml",
    )


def shares_wanted(
    server: Server, shares: int | None, threshold: int | None, present: tuple[int, int] | None
) -> tuple[int, int]:
    """How many shares to make, and how many of them shall be enough. Raises UsageError.

    What is not given is as at ``present``, as kluis.toml declares it, or 5 and 3. Servers take no
    threshold of 1 for several shares.
    """
    by_default = present or (
        server.identity.shares or DEFAULT_SHARES,
        server.identity.threshold or DEFAULT_THRESHOLD,
    )
    count = by_default[0] if shares is None else shares
    enough = min(by_default[1], count) if threshold is None else threshold
    if not 1 <= enough <= count <= MAX_SHARES or (count > 1 and enough == 1):
        raise UsageError(
            f"{count} shares, of which {enough} are enough, are not possible",
            f"a threshold is from 2 to the number of shares; that is at most {MAX_SHARES};"
            " a single share has the threshold 1",
            "give other numbers: --shares 5 --threshold 3",
        )
    return count, enough


def refuse_undeclared_numbers(server: Server, count: int, enough: int) -> None:
    """A new server must be as kluis.toml declares it: watch compares. Raises UsageError."""
    said = server.identity
    if (said.shares or count, said.threshold or enough) != (count, enough):
        raise UsageError(
            f"{server.name} is to have {count} shares, of which {enough} are enough",
            f"kluis.toml declares {said.shares or count} and {said.threshold or enough}",
            f"correct [servers.{server.name}], or leave --shares and --threshold out",
        )

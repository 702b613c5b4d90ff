"""What is known of the nodes of servers: the words that status, metrics and hooks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Condition(StrEnum):
    """What a node is in."""

    UNKNOWN = "unknown"  # not asked yet
    UNREACHABLE = "unreachable"  # nobody listens there
    HUNG = "hung"  # takes connections and does not answer in time
    WRONG = "wrong"  # not the server that it should be: it gets no share
    UNINITIALISED = "uninitialised"  # its storage is empty: an alarm, and never an init
    SEALED = "sealed"  # and nothing can be done about it here; ``seen`` says why
    HELD = "held"  # sealed, and let be: by a person's hand
    UNSEALING = "unsealing"  # shares were pushed, or it works on them
    UNSEALED = "unsealed"


class Alarm(StrEnum):
    """What a person must look at. The words are a contract: metrics and rules name them."""

    CERTIFICATE = "certificate"  # chain, name, pin or user do not fit
    SEAL = "seal"  # type, threshold or number of shares do not fit
    CLUSTER = "cluster"  # after the unseal it told another cluster id
    LOST_DISK = "lost-disk"  # it says that it was never initialised
    SHARES = "shares"  # it refused the shares
    NO_LEADER = "no-leader"  # it is unsealed, and knows no active node of its cluster
    LOCKED = "locked"  # the keyring with the shares is locked
    NO_SHARES = "no-shares"  # nothing is kept for it
    UNPINNED = "unpinned"  # nobody pinned its key yet: kluis server add


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node. ``since_s`` is Unix time; ``active`` is that it does the cluster's work.

    ``seen``, ``means`` and ``next_step`` are for a person, and empty while all is well.
    """

    address: str
    condition: Condition
    since_s: float
    active: bool = False
    alarm: Alarm | None = None
    seen: str = ""
    means: str = ""
    next_step: str = ""
    version: str = ""
    certificate_ends_s: float | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A person's word that a server stays as it is, until ``until_s`` (Unix time), or for good.

    ``seen`` is empty, or says why it is held although nobody said so: the record can't be read.
    """

    since_s: float
    until_s: float | None = None
    seen: str = ""


@dataclass(frozen=True, slots=True)
class ServerView:
    """One server with its nodes, by their addresses. ``down_since_s`` is None while one works.

    ``seen``, ``means`` and ``next_step`` say why its nodes can't be found; empty while they can.
    """

    name: str
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    hold: Hold | None = None
    down_since_s: float | None = None
    seen: str = ""
    means: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """A server is back. ``listening_s``: from the first listening to unsealed, where it was seen.

    ``down_s`` is how long no node of it worked; both are seconds.
    """

    server: str
    down_s: float
    listening_s: float | None = None

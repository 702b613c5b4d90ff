"""What is known of a node when it is judged: what is declared, what it said, what was before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from kluis.addresses import is_plain_loopback
from kluis.servers.client import SealStatus
from kluis.servers.declared import Identity, Server
from kluis.servers.watch.attempts import Attempts
from kluis.servers.watch.states import Alarm, Condition


class Way(Enum):
    """What proves that a node is the declared server."""

    PINNED = auto()  # chain, name and pin
    LOOPBACK = auto()  # plain http that does not leave this machine, to the declared user if any
    UNPINNED = auto()  # chain and name only
    CLEAR = auto()  # nothing


@dataclass(frozen=True, slots=True)
class Rules:
    """What is declared of a node.

    ``pushes``: there are shares for it, under ``key``. ``lets_be``: sealed by a person it stays so.
    """

    server: str
    address: str
    way: Way
    identity: Identity
    pushes: bool
    lets_be: bool
    key: str = ""


def rules(server: Server, address: str) -> Rules:
    """The rules for one node of a server."""
    if address.startswith("https://"):
        way = Way.UNPINNED if server.tls.pin is None else Way.PINNED
    else:
        way = Way.LOOPBACK if is_plain_loopback(address) else Way.CLEAR
    pushes, lets_be = server.unseal is not None, server.on_seal == "hold"
    key = "" if server.unseal is None else str(server.unseal)
    return Rules(server.name, address, way, server.identity, pushes, lets_be, key)


@dataclass(frozen=True, slots=True)
class Past:
    """What was seen of a node before.

    ``unsealed_here`` is that it was so on the present connection; ``by_hand`` that it was sealed
    since, while its process ran on. ``foreign`` is that it told another cluster's id.
    """

    unsealed_here: bool = False
    by_hand: bool = False
    foreign: bool = False
    empty_since_s: float | None = None
    leaderless_since_s: float | None = None
    cluster_id: str = ""
    """What was kept with the shares; the declared one comes first."""
    attempts: Attempts = field(default_factory=Attempts)

    def looked(self, answer: Answer, rules: Rules, now_s: float) -> Past:
        """With one more answer."""
        status = answer.status
        if not status.sealed:
            expected = rules.identity.cluster_id or self.cluster_id
            told = status.cluster_id or (expected if not self.foreign else "")
            foreign = bool(expected) and told != expected
            since_s = None if answer.led else self.leaderless_since_s or now_s
            return Past(not answer.proxied, False, foreign, None, since_s, self.cluster_id)
        empty_since_s = None if status.initialized else self.empty_since_s or now_s
        by_hand = self.by_hand or self.unsealed_here
        return replace(
            self,
            unsealed_here=False,
            by_hand=by_hand,
            empty_since_s=empty_since_s,
            leaderless_since_s=None,
        )

    def disconnected(self, *, restarted: bool) -> Past:
        """The connection is gone; ``restarted``: because the server's process ended."""
        past = replace(self, unsealed_here=False)
        if restarted:
            attempts = self.attempts.restarted()
            past = replace(past, by_hand=False, leaderless_since_s=None, attempts=attempts)
        return past

    def lasting(self) -> Past:
        """What holds for the node at this address also after it was away from the list of nodes."""
        return Past(by_hand=self.by_hand, foreign=self.foreign, attempts=self.attempts)

    def released(self) -> Past:
        """A person does not want it sealed any longer."""
        return replace(self, unsealed_here=False, by_hand=False, attempts=self.attempts.woken())


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said, and whether a proxy answered for it.

    ``led``: it is the active node of its cluster, or knows which one is.
    """

    status: SealStatus
    active: bool = False
    proxied: bool = False
    led: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """All that a verdict depends on. ``held``: a person holds the server. Seconds of one clock."""

    answer: Answer
    rules: Rules
    past: Past
    held: bool
    now_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a node is in, in words too, and whether shares may be sent to it now."""

    condition: Condition
    alarm: Alarm | None = None
    seen: str = ""
    means: str = ""
    next_step: str = ""
    active: bool = False
    push: bool = field(default=False, kw_only=True)

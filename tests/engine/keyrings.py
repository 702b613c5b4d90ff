"""Keyrings on programmable anchors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from shamir_mnemonic import Share

from kluis.anchors.base import Anchor
from kluis.engine import change
from kluis.engine.change import Changed
from kluis.engine.opening import Opened
from kluis.keyring import policy, tree
from kluis.keyring.document import Document, Token
from kluis.keyring.plan import Wanted, WantedClient
from tests.support.failing_anchor import Behaviour, Down, FailingAnchor, Works

NOW = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:04:06Z"
PATIENCE_S = 30.0
"""For what has to happen, on however slow a machine."""

ANCHORS_S = 120.0
"""The deadline of the programmable anchors: one that hangs does so far beyond ``PATIENCE_S``."""

TOKEN = Token("ab" * 32, NOW)

People = Mapping[str, tuple[int, int]]


def token_of(client: str) -> tuple[Token, ...]:
    """The one token of every new client."""
    return (TOKEN,)


def wanted(
    expression: str,
    people: People | None = None,
    keys: Mapping[str, str] | None = None,
    clients: Mapping[str, WantedClient] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Wanted:
    """A wish; every name that is not of people is a programmable anchor, or of ``kinds``."""
    rule = policy.parse(expression)
    leaves: dict[str, tree.Leaf] = {
        name: tree.AnchorLeaf(name, (kinds or {}).get(name, FailingAnchor.kind))
        for name in policy.names(rule)
    }
    for name, (threshold, shares) in (people or {}).items():
        leaves[name] = tree.PeopleLeaf(name, threshold, shares, 0)
    return Wanted(
        "homelab",
        rule,
        leaves,
        {"seal": "transit"} if keys is None else keys,
        {"bletchley": WantedClient(("seal",))} if clients is None else clients,
    )


@dataclass(frozen=True)
class Site:
    """A keyring that was just made, and its anchors."""

    changed: Changed
    anchors: dict[str, Anchor]

    @property
    def document(self) -> Document:
        return self.changed.opened.document

    @property
    def opened(self) -> Opened:
        return self.changed.opened

    @property
    def paper(self) -> tuple[str, ...]:
        """The shares of the only people."""
        (shares,) = self.changed.paper.values()
        return shares

    def anchor(self, name: str) -> FailingAnchor:
        found = self.anchors[name]
        assert isinstance(found, FailingAnchor)
        return found

    def now(self, **behaviours: Behaviour) -> None:
        """What these anchors do from now on."""
        for name, behaviour in behaviours.items():
            self.anchor(name).now = behaviour

    def only(self, answering: Iterable[str]) -> None:
        """Just these anchors answer; all others are down."""
        working = set(answering)
        for name in self.anchors:
            self.anchor(name).now = Works() if name in working else Down()


def anchors_of(expression: str, people: People | None = None) -> dict[str, Anchor]:
    """A programmable anchor for every name that is not of people."""
    names = policy.names(policy.parse(expression))
    return {
        name: FailingAnchor(name, deadline_s=ANCHORS_S)
        for name in names
        if name not in (people or {})
    }


async def make(
    expression: str,
    people: People | None = None,
    keys: Mapping[str, str] | None = None,
    anchors: dict[str, Anchor] | None = None,
) -> Site:
    """A new keyring. ``anchors`` replace programmable ones of the same name."""
    everywhere = anchors_of(expression, people) | (anchors or {})
    kinds = {name: anchor.kind for name, anchor in everywhere.items()}
    wish = wanted(expression, people, keys, kinds=kinds)
    return Site(await change.make(wish, everywhere, token_of, NOW), everywhere)


def forged(mnemonic: str, **changes: object) -> str:
    """A share with a right checksum that says something else."""
    return str(replace(Share.from_mnemonic(mnemonic), **changes).mnemonic())


def forged_value(mnemonic: str) -> str:
    """A share of the same set and number, with another value."""
    value = bytearray(Share.from_mnemonic(mnemonic).value)
    value[0] ^= 1
    return forged(mnemonic, value=bytes(value))


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)

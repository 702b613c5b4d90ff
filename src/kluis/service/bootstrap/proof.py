"""That a document opens with this machine's anchors alone, and holds the key that it should."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kluis.anchors.base import Anchor
from kluis.engine.opening import Opened, Opening
from kluis.engine.survey import look_at
from kluis.errors import CannotOpen
from kluis.keyring import crypto, policy, tree, trust, words
from kluis.keyring.document import Document, from_bytes, to_bytes
from kluis.keyring.keys import Key
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from kluis.service.bootstrap.given_key import Check

ASK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Proof:
    """Who opened it; empty when it is locked. ``alone``: whose loss alone would lock it for good.

    ``compared`` says whether there was a key to compare with, ``known`` whether that or the record
    of the one that was given is of this key; ``latest`` is the key's version. ``unanswered`` are
    the machine anchors that do not open their leaf now: they count as lost.
    """

    proven_by: tuple[str, ...] = ()
    compared: bool = False
    known: bool = False
    latest: int = 0
    alone: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()

    @property
    def frees_the_secret(self) -> bool:
        """Whether the given key is needed no more: it is here, and not behind one thing only."""
        return bool(self.proven_by) and self.known and not self.alone

    def shown(self) -> dict[str, JSON]:
        """As JSON."""
        return {
            "open": bool(self.proven_by),
            "proven_by": list(self.proven_by),
            "compared": self.compared,
            "latest": self.latest,
            "single_losses": list(self.alone),
            "unanswered": list(self.unanswered),
            "secret_may_be_deleted": self.frees_the_secret,
        }


async def prove(
    document: Document,
    anchors: Mapping[str, Anchor],
    key: str,
    given: Secret | None,
    check: Check | None = None,
) -> Proof:
    """Open the bytes of a document as a stranger would, and ask the other anchors, too.

    ``check`` is what is remembered of the key that was given. Raises CannotOpen or DocumentError.
    """
    opening = Opening(from_bytes(to_bytes(document)))
    opened = await opening.ask(anchors)
    if opened is None:
        raise _not_open(document.name, opening)
    try:
        held = opened.contents.keys.get(key)
        if held is None or (given is not None and not holds(held, given)):
            raise CannotOpen(
                f"{document.name}/{key} is not the key that was given",
                "something else wrote this document",
                "keep the Secret, and find out who",
            )
        known = given is not None or (check is not None and _fits(held, check))
        right = opening.answered - opening.failures.keys()
        silent = await _unanswered(opened, anchors, right)
        alone = _alone(document, silent)
        by, lost = tuple(sorted(right)), tuple(sorted(silent))
        return Proof(by, given is not None, known, held.latest, alone, lost)
    finally:
        opened.wipe()


def holds(key: Key, given: Secret) -> bool:
    """Whether some version of a key is the given one."""
    return any(crypto.same(v.material, given.reveal()) for v in key.versions.values())


def _fits(key: Key, check: Check) -> bool:
    return any(check.fits(Secret(version.material)) for version in key.versions.values())


async def _unanswered(opened: Opened, anchors: Mapping[str, Anchor], right: set[str]) -> set[str]:
    """The machine leaves that do not open within ASK_S; those that just did are not asked again.

    What a person types can't be asked for, and counts as people do.
    """
    asked = {
        leaf.name: asyncio.create_task(
            look_at(opened.document, path, leaf, opened.contents.leaves[path], anchor)
        )
        for path, leaf in tree.machine_leaves(opened.document.tree)
        for anchor in [anchors.get(leaf.name)]
        if leaf.name not in right
        and (leaf.sealed is None or anchor is None or not anchor.needs_person)
    }
    if asked:
        await asyncio.wait(asked.values(), timeout=ASK_S)
    late = {name for name, look in asked.items() if look.cancel()}
    return late | {name for name in asked.keys() - late if asked[name].result().failure}


def _not_open(keyring: str, opening: Opening) -> CannotOpen:
    name, error = min(opening.failures.items(), default=("", None))
    return CannotOpen(
        f"{keyring} does not open with the anchors of this machine alone"
        + (f"; {name}: {error.seen}" if error else ""),
        error.means if error else "its rule asks for people or a passphrase",
        error.next_step if error else "add an anchor of this machine to the rule with 'or'",
    )


def _alone(document: Document, lost: set[str]) -> tuple[str, ...]:
    """The leaves whose loss alone locks for good, after those that open nothing now."""
    rule = tree.to_policy(document.tree)
    people = words.people_among(leaf for _, leaf in tree.leaves(document.tree))
    left = set(policy.names(rule)) - lost
    return tuple(
        name
        for name in sorted(left)
        if not trust.opens_with(rule, left - {name}) and not _spares_one(people.get(name))
    )


def _spares_one(shares: tuple[int, int] | None) -> bool:
    """Whether people may lose a share; what is no people's has none to spare."""
    return shares is not None and shares[0] < shares[1]

"""That a document opens with this machine's anchors alone, and holds the key that it should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kluis.anchors.base import Anchor
from kluis.engine.opening import Opening
from kluis.errors import CannotOpen
from kluis.keyring import crypto, policy, tree, trust, words
from kluis.keyring.document import Document, from_bytes, to_bytes
from kluis.keyring.keys import Key
from kluis.keyring.strict import JSON
from kluis.secret import Secret


@dataclass(frozen=True, slots=True)
class Proof:
    """Who opened it; empty when it is locked. ``alone``: whose loss alone would lock it for good.

    ``compared`` says whether there was a key to compare with; ``latest`` is the key's version.
    """

    proven_by: tuple[str, ...] = ()
    compared: bool = False
    latest: int = 0
    alone: tuple[str, ...] = ()

    @property
    def frees_the_secret(self) -> bool:
        """Whether the key that was given is needed no more: it opens, and not by one thing only."""
        return bool(self.proven_by) and not self.alone

    def shown(self) -> dict[str, JSON]:
        """As JSON."""
        return {
            "open": bool(self.proven_by),
            "proven_by": list(self.proven_by),
            "compared": self.compared,
            "latest": self.latest,
            "single_losses": list(self.alone),
            "secret_may_be_deleted": self.frees_the_secret,
        }


async def prove(
    document: Document, anchors: Mapping[str, Anchor], key: str, given: Secret | None
) -> Proof:
    """Open the bytes of a document as a stranger would. Raises CannotOpen or DocumentError."""
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
        return Proof(
            tuple(sorted(opening.answered)), given is not None, held.latest, _alone(document)
        )
    finally:
        opened.wipe()


def holds(key: Key, given: Secret) -> bool:
    """Whether some version of a key is the given one."""
    return any(crypto.same(v.material, given.reveal()) for v in key.versions.values())


def _not_open(keyring: str, opening: Opening) -> CannotOpen:
    name, error = min(opening.failures.items(), default=("", None))
    return CannotOpen(
        f"{keyring} does not open with the anchors of this machine alone"
        + (f"; {name}: {error.seen}" if error else ""),
        error.means if error else "its rule asks for people or a passphrase",
        error.next_step if error else "add an anchor of this machine to the rule with 'or'",
    )


def _alone(document: Document) -> tuple[str, ...]:
    """The leaves whose loss alone locks for good; one that is not sealed yet opens nothing."""
    rule = tree.to_policy(document.tree)
    people = words.people_among(leaf for _, leaf in tree.leaves(document.tree))
    unsealed = {leaf.name for _, leaf in tree.machine_leaves(document.tree) if leaf.sealed is None}
    left = set(policy.names(rule)) - unsealed
    return tuple(
        name
        for name in sorted(left)
        if not trust.opens_with(rule, left - {name}) and not _spares_one(people.get(name))
    )


def _spares_one(shares: tuple[int, int] | None) -> bool:
    """Whether people may lose a share; what is no people's has none to spare."""
    return shares is not None and shares[0] < shares[1]

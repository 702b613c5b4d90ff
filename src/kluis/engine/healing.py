"""Healing: a leaf that is unsealed, damaged, refused for good or outdated is sealed anew.

The root secret stays, and so do all other leaves. What was sealed is opened again before anything
is written, as ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from kluis.anchors.base import Anchor
from kluis.engine.opening import Opened
from kluis.engine.sealing import seal_document, try_seal_leaf
from kluis.errors import AnchorError
from kluis.keyring import tree

FIRST_REST_S: Final = 60.0
LAST_REST_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Healed:
    """The keyring with the leaves that could be sealed anew, not yet written; and the others.

    ``opened`` is None when none could.
    """

    opened: Opened | None
    names: tuple[str, ...]
    failures: Mapping[str, AnchorError]


async def heal(
    opened: Opened, names: Collection[str], anchors: Mapping[str, Anchor], now: str
) -> Healed:
    """Seal the leaves of these names anew, all at once. Raises Locked."""
    opened, old = opened.copy(), opened.document
    sick = [(path, leaf) for path, leaf in tree.machine_leaves(old.tree) if leaf.name in names]
    secrets = opened.contents.leaves
    outcomes = await asyncio.gather(
        *(try_seal_leaf(old, path, leaf, secrets[path], anchors) for path, leaf in sick)
    )
    node, done, failures = old.tree, [], {}
    for (path, leaf), outcome in zip(sick, outcomes, strict=True):
        if isinstance(outcome, AnchorError):
            failures[leaf.name] = outcome
        else:
            node = tree.replace_leaf(node, path, outcome)
            done.append(leaf.name)
    if not done:
        return Healed(None, (), failures)
    draft = replace(old, tree=node, revision=old.revision + 1, written=now)
    document = seal_document(draft, opened.root, opened.contents)
    return Healed(replace(opened, document=document), tuple(sorted(done)), failures)


class Patience:
    """A leaf that falls sick again and again is not written anew every minute.

    After every attempt the rest doubles, from a minute to a day. Two days of health end that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempts: dict[str, tuple[int, float]] = {}

    def may_try(self, name: str) -> bool:
        """Whether an attempt is due."""
        attempts, last = self._attempts.get(name, (0, 0.0))
        return not attempts or self._clock() - last >= self._rest_s(attempts)

    def tried(self, name: str) -> None:
        """An attempt was made, whatever came of it."""
        attempts, last = self._attempts.get(name, (0, 0.0))
        if self._clock() - last >= 2 * LAST_REST_S:
            attempts = 0
        self._attempts[name] = attempts + 1, self._clock()

    @staticmethod
    def _rest_s(attempts: int) -> float:
        return min(LAST_REST_S, FIRST_REST_S * 2.0 ** min(attempts - 1, 16))

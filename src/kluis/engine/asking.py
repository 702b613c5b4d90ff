"""Asking the anchors of a locked keyring again and again, each at its own pace.

After a failure an anchor rests. Meanwhile it is knocked on: one that was away and is back is asked
at once, so that a keyring opens the moment that enough anchors are there. An anchor is asked for
real at every turn all the same: a knock may say another thing than the anchor itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from kluis.anchors.base import Anchor
from kluis.engine.opening import Opening
from kluis.engine.turns import Turns
from kluis.errors import AnchorError
from kluis.keyring import tree


async def keep_asking(
    opening: Opening, anchors: Mapping[str, Anchor], turns: Turns, knock_s: float
) -> None:
    """Ask until cancelled, or until no anchor is left that asking could make a difference for."""
    asked = [
        _Asked(opening, path, leaf, anchor, turns, knock_s)
        for path, leaf, anchor in opening.askable(anchors)
    ]
    await asyncio.gather(*(one.keep_asking() for one in asked))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One leaf and its anchor."""

    opening: Opening
    path: tree.Path
    leaf: tree.AnchorLeaf
    anchor: Anchor
    turns: Turns
    knock_s: float

    async def keep_asking(self) -> None:
        while self.opening.opened is None:
            self.turns.asked(self.anchor)
            failure = await self.opening.ask_one(self.path, self.leaf, self.anchor)
            if failure is None:
                self.turns.answered(self.anchor)
                await self._until_contradicted()
            else:
                there = await self._is_there()
                self.turns.failed(self.anchor, failure, was_there=there)
                await self._rest(there)

    async def _rest(self, there: bool) -> None:
        """Until its next turn, or until it is back."""
        while (wait_s := self.turns.wait_s(self.anchor)) > 0:
            await asyncio.sleep(min(wait_s, self.knock_s))
            was_there, there = there, await self._is_there()
            if there and not was_there:
                return

    async def _until_contradicted(self) -> None:
        """What answered is asked again only when the answers, though enough, open nothing."""
        await asyncio.sleep(self.turns.wait_s(self.anchor))
        while not self.opening.contradicted:  # noqa: ASYNC110 - others make it so, at their pace
            await asyncio.sleep(self.knock_s)

    async def _is_there(self) -> bool:
        try:
            await self.anchor.knock()
        except AnchorError:
            return False
        return True

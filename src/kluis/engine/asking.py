"""Asking the anchors of a locked keyring again and again, each at its own pace.

After a failure an anchor rests. Meanwhile it is knocked on: one that was away and is back is asked
at once, so that a keyring opens the moment that enough anchors are there. An anchor is asked for
real at every turn all the same: a knock may say another thing than the anchor itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kluis.anchors.base import Anchor
from kluis.engine.opening import Opening, wrong_answer
from kluis.engine.survey import Finding
from kluis.engine.turns import Turns
from kluis.errors import AnchorError, Missing, Unreachable
from kluis.keyring import tree


async def keep_asking(
    opening: Opening,
    anchors: Mapping[str, Anchor],
    turns: Turns,
    knock_s: float,
    tell: Callable[[str, Finding], None] = lambda _name, _finding: None,
) -> None:
    """Ask until cancelled, or until no anchor is left that asking could make a difference for.

    ``tell`` gets what was found of an anchor each time that it was asked.
    """
    asked = [
        _Asked(opening, path, leaf, anchor, turns, knock_s, tell)
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
    tell: Callable[[str, Finding], None]

    async def keep_asking(self) -> None:
        may_retry = True
        while self.opening.opened is None:
            self.turns.asked(self.anchor)
            failure = await self.opening.ask_one(self.path, self.leaf, self.anchor)
            self.tell(self.leaf.name, Finding(failure))
            if failure is None:
                await self._until_contradicted()
                continue
            away = isinstance(failure, Unreachable | Missing) and not await self._is_there()
            if may_retry and not away and _was_cut_off(failure):
                may_retry = False
                await asyncio.sleep(self.knock_s)
                continue
            may_retry = may_retry or away
            self.turns.failed(self.anchor, failure, was_there=not away)
            await (self._until_back() if away else self._until_its_turn())

    async def _until_its_turn(self) -> None:
        await asyncio.sleep(self.turns.wait_s(self.anchor))

    async def _until_back(self) -> None:
        """Until one that was away is there again; at the latest until its next turn."""
        while (wait_s := self.turns.wait_s(self.anchor)) > 0:
            await asyncio.sleep(min(wait_s, self.knock_s))
            if await self._is_there():
                return

    async def _until_contradicted(self) -> None:
        """What answered is asked again only when the answers, though enough, open nothing."""
        self.turns.failed(self.anchor, wrong_answer(), was_there=True)
        await self._until_its_turn()
        while not self.opening.contradicted:  # noqa: ASYNC110 - others make it so, at their pace
            await asyncio.sleep(self.knock_s)

    async def _is_there(self) -> bool:
        try:
            await self.anchor.knock()
        except AnchorError:
            return False
        return True


def _was_cut_off(failure: AnchorError) -> bool:
    """Whether it could not be reached, and did not say when to come again.

    One that hung past its deadline, and is there, may be over it: it is asked once more.
    """
    return isinstance(failure, Unreachable) and not failure.retry_s

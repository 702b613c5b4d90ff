"""One anchor by itself: could it open now, what is it, make its key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from kluis.anchors.base import Anchor
from kluis.errors import AnchorError, UsageError
from kluis.keyring.strict import JSON
from kluis.service.house import House, explain_error, explain_notice
from kluis.service.operations import Args, text, texts

T = TypeVar("T")


async def probe(house: House, args: Args) -> dict[str, JSON]:
    """Whether these anchors (all, when none is named) could open now, and how long that took."""
    names = texts(args, "anchors") or sorted(house.blueprint.anchors)
    anchors = [_anchor(house, name) for name in names]
    probed = await asyncio.gather(*(_probe(anchor) for anchor in anchors))
    return {"anchors": dict(zip(names, probed, strict=True))}


async def _probe(anchor: Anchor) -> JSON:
    began, failure = time.monotonic(), None
    try:
        await anchor.probe()
    except AnchorError as error:
        failure = error
    took_ms = round((time.monotonic() - began) * 1000)
    said: dict[str, JSON] = {"kind": anchor.kind, "took_ms": took_ms, "state": "ok"}
    if failure is not None:
        return {**said, "state": failure.state, "error": {**explain_error(failure)}}
    return {**said, "notice": explain_notice(anchor.notice)}


async def show(house: House, args: Args) -> dict[str, JSON]:
    """What an anchor tells of itself."""
    anchor = _anchor(house, text(args, "anchor"))
    facts = dict(await _named(anchor, anchor.show()))
    return {
        "anchor": anchor.name,
        "kind": anchor.kind,
        "facts": facts,
        "notice": explain_notice(anchor.notice),
    }


async def create_key(house: House, args: Args) -> dict[str, JSON]:
    """Make the key that an anchor's settings name."""
    anchor = _anchor(house, text(args, "anchor"))
    made = await _named(anchor, anchor.create_key())
    for guard in house.guards.values():
        guard.wake()
    return {"anchor": anchor.name, "made": made}


async def _named(anchor: Anchor, call: Awaitable[T]) -> T:
    try:
        return await call
    except AnchorError as error:
        error.seen = f"anchors.{anchor.name}: {error.seen}"
        raise


def _anchor(house: House, name: str) -> Anchor:
    found = house.blueprint.anchors.get(name)
    if found is not None:
        return found
    known = ", ".join(sorted(house.blueprint.anchors)) or "none"
    raise UsageError(
        f"there is no anchor {name} that kluis could ask",
        f"kluis.toml declares: {known}; people are asked by kluis unlock",
        "correct the name",
    )

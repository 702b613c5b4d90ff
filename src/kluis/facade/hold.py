"""Holding a request until its keyring opens: a stock server waits patiently for a decrypt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kluis.engine.guard import Guard
from kluis.facade.replies import Refusal, retry_after
from kluis.facade.requests import Gone


class Hold:
    """A bounded number of requests that wait, each for at most ``hold_s``."""

    def __init__(self, places: int, hold_s: float) -> None:
        self._places = places
        self._hold_s = hold_s
        self.held = 0

    async def until_open(self, guard: Guard, disconnected: Callable[[], Awaitable[None]]) -> None:
        """Returns when the keyring is open. Raises Refusal (503) or Gone."""
        if self.held >= self._places:
            raise Refusal(
                503,
                (f"{guard.name} is locked, and {self.held} requests wait already",),
                "no place to wait",
                retry_after(5),
            )
        self.held += 1
        try:
            if not await self._wait(guard, disconnected):
                raise Refusal(503, (f"{guard.name} is locked",), "held until the limit")
        finally:
            self.held -= 1

    async def _wait(self, guard: Guard, disconnected: Callable[[], Awaitable[None]]) -> bool:
        opened = asyncio.create_task(guard.wait_open(self._hold_s))
        gone = asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait({opened, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                raise Gone
            return opened.result()
        finally:
            opened.cancel()
            gone.cancel()

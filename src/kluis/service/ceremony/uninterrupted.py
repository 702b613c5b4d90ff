"""Work whose outcome must not be lost: who hangs up, Ctrl-C and an orderly stop wait for its end.

A cancellation reaches every task of an event loop when a process ends, and would tear a request
from its answer. So the request runs in a thread with a loop of its own, and whoever waits for it
takes cancellations as they come and passes them on at the end. Only SIGKILL, or a machine that
loses its power, comes in between.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

_DEFERRED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Uninterrupted:
    """Used as ``async with``: a cancellation in between is raised when the block is over."""

    def __init__(self) -> None:
        self.cancelled = False

    async def __aenter__(self) -> Uninterrupted:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.cancelled:
            raise asyncio.CancelledError

    async def apart(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of a coroutine that runs in a thread of its own, to its end."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                value = asyncio.run(make())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                loop.call_soon_threadsafe(outcome.set_exception, error)
            else:
                loop.call_soon_threadsafe(outcome.set_result, value)

        threading.Thread(target=work, name="ceremony", daemon=False).start()
        while not outcome.done():
            try:
                await asyncio.wait({outcome})
            except asyncio.CancelledError:
                self.cancelled = True
        return outcome.result()

    async def here(self, make: Callable[[], Awaitable[T]]) -> T:
        """The outcome of what is waited for here, begun anew after each cancellation."""
        while True:
            try:
                return await make()
            except asyncio.CancelledError:
                self.cancelled = True


@contextmanager
def signals_wait(*, serving: bool) -> Iterator[list[int]]:
    """What would end this process comes when the block is over, unless the list is emptied.

    For a command that does its work itself: one that is ``serving`` has handlers of its own.
    """
    came: list[int] = []
    if serving or threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in _DEFERRED}
    for number in _DEFERRED:
        signal.signal(number, lambda seen, _: came.append(seen))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for seen in came:
            os.kill(os.getpid(), seen)

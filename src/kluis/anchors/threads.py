"""Calls that block, each in a thread of its own, so that one which hangs holds up nobody.

A thread can't be stopped: a call that was broken off goes on until it ends by itself. So the
threads are bounded in number, and they are daemons: the end of the process waits for none.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from kluis.errors import Unreachable

MOST_THREADS: Final = 32

T = TypeVar("T")


class Threads:
    """The threads of one anchor; at most ``most`` at once."""

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._most = most
        self._free = threading.BoundedSemaphore(most)
        self._running: set[threading.Thread] = set()

    @property
    def crowded(self) -> bool:
        """Whether so many calls hang that the rest is kept for those that matter."""
        return len(self._running) > self._most // 2

    async def run(self, call: Callable[[], T]) -> T:
        """What ``call`` gives or raises. Raises Unreachable when too many calls hang already."""
        if not self._free.acquire(blocking=False):
            raise Unreachable(
                f"{self._most} earlier calls hang",
                "what the anchor reads from does not answer",
                "check the disk, the mount or the device it reads from",
            )
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        thread = threading.Thread(target=self._work, args=(call, answer), daemon=True)
        self._running.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._end(thread)
            raise Unreachable(
                "no thread could be started",
                "this system allows the process no more of them, or no more locked memory",
                "raise TasksMax= and LimitMEMLOCK= of the unit",
            ) from None
        return await answer

    def _work(self, call: Callable[[], T], answer: asyncio.Future[T]) -> None:
        outcome: T | Exception
        try:
            outcome = call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
            outcome = error
        self._end(threading.current_thread())
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            answer.get_loop().call_soon_threadsafe(_settle, answer, outcome)

    def _end(self, thread: threading.Thread) -> None:
        self._running.discard(thread)
        self._free.release()


def _settle(answer: asyncio.Future[T], outcome: T | Exception) -> None:
    if answer.done():  # broken off
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)

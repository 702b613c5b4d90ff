"""Serving until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from kluis.errors import KluisError
from kluis.servers.notify import Notifier
from kluis.service.house import House

T = TypeVar("T")
Part = Coroutine[Any, Any, None]


async def serve(house: House, parts: Sequence[Part], log: Any, notifier: Notifier) -> None:
    """Run the house and its parts together until SIGTERM or SIGINT; SIGHUP reloads.

    The end of one part is the end of all; its error is raised.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload(house, log))
    notifier.ready("serving")
    try:
        await together(stop.wait(), [house.serve(), *parts])
    finally:
        notifier.stopping()


async def together(main: Coroutine[Any, Any, T], parts: Sequence[Part]) -> T | None:
    """The result of ``main``, while the parts run beside it; then all are ended.

    A part that ends first ends everything, and its error is raised.
    """
    leading = asyncio.create_task(main)
    tasks = [leading, *(asyncio.create_task(part) for part in parts)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return leading.result() if not leading.cancelled() else None


def _reload(house: House, log: Any) -> Callable[[], None]:
    running: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        try:
            async with house.changing:
                house.redraw()
            log.info("reloaded", pid=os.getpid())
        except KluisError as error:
            log.error("not reloaded", seen=error.seen, next=error.next_step)

    def start() -> None:
        running.add(task := asyncio.create_task(reload()))
        task.add_done_callback(running.discard)

    return start

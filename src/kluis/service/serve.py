"""Serving until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from kluis.errors import KluisError
from kluis.servers.notify import Notifier
from kluis.service.house import House


async def serve(
    house: House, parts: list[Coroutine[Any, Any, None]], log: Any, notifier: Notifier
) -> None:
    """Run the house and its parts together until SIGTERM or SIGINT; SIGHUP reloads.

    The end of one part is the end of all; its error is raised.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload(house, log))
    tasks = [asyncio.create_task(part) for part in (house.serve(), *parts)]
    stopped = asyncio.create_task(stop.wait())
    notifier.ready("serving")
    try:
        await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        notifier.stopping()
        await end([*tasks, stopped])


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _reload(house: House, log: Any) -> Callable[[], None]:
    def reload() -> None:
        try:
            house.redraw()
            log.info("reloaded", pid=os.getpid())
        except KluisError as error:
            log.error("not reloaded", seen=error.seen, next=error.next_step)

    return reload

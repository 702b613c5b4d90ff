"""Keeps servers unsealed: all of them side by side, each node in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable, Mapping

from kluis.keyring.custody import Custody
from kluis.servers.declared import KeyPath, Server
from kluis.servers.watch.fleet import Fleet
from kluis.servers.watch.states import Hold, ServerView
from kluis.servers.watch.told import Told
from kluis.servers.watch.watched import Watched


class Watcher:
    """Watches ``servers``, by their names.

    ``custody`` gives the shares under a key, or raises KluisError; it is asked when a server is to
    be unsealed. ``hold_of`` says whether a person holds a server. ``clock`` gives Unix time.
    """

    def __init__(
        self,
        servers: Mapping[str, Server],
        custody: Callable[[KeyPath], Custody],
        hold_of: Callable[[str], Hold | None],
        told: Told,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._servers = dict(servers)
        self._fleet = Fleet(custody, clock)
        self._hold_of, self._told = hold_of, told
        self._watched: dict[str, Watched] = {}
        self._last: Mapping[str, ServerView] = {name: ServerView(name) for name in servers}
        self._leaving: set[asyncio.Task[None]] = set()
        self._runs = False

    async def run(self) -> None:
        """Watch until cancelled. One server's trouble, or a fault at it, is no other's."""
        self._start()
        try:
            await asyncio.get_running_loop().create_future()  # the nodes' tasks do all of it
        finally:
            await self._stop()

    async def once(self, deadline_s: float) -> Mapping[str, ServerView]:
        """One pass: look at every node, unseal what is sealed, and say how all are then.

        Ends when nothing more is to be expected soon, or after ``deadline_s``.
        """
        self._start()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    while not all(watched.settled for watched in self._watched.values()):
                        self._fleet.stirred.clear()
                        await self._fleet.stirred.wait()
            return self.views()
        finally:
            await self._stop()

    def views(self) -> Mapping[str, ServerView]:
        """What is known now, by the servers' names; after the end, what was known last."""
        if self._runs:
            self._last = {name: watched.view for name, watched in self._watched.items()}
        return self._last

    def take(self, servers: Mapping[str, Server]) -> None:
        """Watch these from now on. Nodes that stay keep what is known of them.

        One that is declared in another way is asked anew, over a connection proven anew.
        """
        self._servers = dict(servers)
        if not self._runs:
            self._last = {name: ServerView(name) for name in servers}
            return
        for name in [name for name in self._watched if name not in servers]:
            task = asyncio.create_task(self._watched.pop(name).stop())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for name, server in servers.items():
            if name in self._watched:
                self._watched[name].take(server)
            else:
                self._enter(server)

    def wake(self, name: str = "") -> None:
        """Look again now, at one server or at all: a hold changed, a keyring was opened.

        With a name it is a person's word: what was sealed by hand is let go, unless it is held.
        """
        for known, watched in self._watched.items():
            if name in ("", known):
                watched.wake(release=bool(name))

    def _start(self) -> None:
        if self._runs:
            raise RuntimeError("a Watcher watches once at a time")
        self._runs = True
        _allow_open_files()
        for server in self._servers.values():
            self._enter(server)

    def _enter(self, server: Server) -> None:
        watched = Watched(server, self._fleet, self._hold_of, self._told)
        self._watched[server.name] = watched
        watched.start()

    async def _stop(self) -> None:
        self.views()
        self._runs = False
        leaving = [watched.stop() for watched in self._watched.values()]
        self._watched = {}
        await asyncio.gather(*leaving, *self._leaving, return_exceptions=True)


def _allow_open_files() -> None:
    """Every node has a connection: as many open files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

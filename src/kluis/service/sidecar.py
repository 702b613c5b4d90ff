"""``kluis sidecar``: hand a static key to a server beside it, and take it back once it is used.

A server reads its static keys at its start only. So their files are there while the keyring is
open and the server is not unsealed, and at no other time: they are written before it starts,
withdrawn when its health says that it works, and written again when it went away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final

from kluis.engine.guard import Guard
from kluis.errors import ServerError, ServerHung, WriteFailed
from kluis.servers.client import ServerClient
from kluis.servers.notify import Notifier
from kluis.service.key_files import KeyFiles
from kluis.service.static_seal import newest

POLL_S: Final = 0.25
HEALTH_S: Final = 2.0
WAIT_S: Final = 60.0


class Seen(Enum):
    """What a look at the server's health showed."""

    UNSEALED = "unsealed"
    SEALED = "sealed"
    AWAY = "away"
    SILENT = "silent"


def wants_key(seen: Seen, *, placed: bool) -> bool:
    """Whether the key's file shall be there, while the keyring is open.

    A server that hangs was started already: then nothing is changed until it is known more.
    """
    return placed if seen is Seen.SILENT else seen is not Seen.UNSEALED


async def look(client: ServerClient) -> Seen:
    """How the server is now."""
    try:
        health = await client.health()
    except ServerHung:
        return Seen.SILENT
    except ServerError:
        return Seen.AWAY
    return Seen.UNSEALED if health.unsealed else Seen.SEALED


class Keeper:
    """Keeps the files of one server as they should be, until cancelled; then they are gone.

    The server is beside it, on loopback; so a certificate is not verified.
    """

    def __init__(
        self, guard: Guard, key: str, files: KeyFiles, address: str, log: Any, notifier: Notifier
    ) -> None:
        self._guard = guard
        self._key = key
        self._files = files
        self._address = address
        self._log = log
        self._notifier = notifier
        self._placed: tuple[str, ...] = ()
        """The ids of the keys whose files are there."""
        self._explained = False
        """Whether the log says why there is a key, or none."""
        self._ready = False
        self._failed = ""

    async def run(self) -> None:
        """Raises UsageError, and UnknownKey when the open keyring has no such key."""
        self._files.remove_leftovers()
        try:
            async with self._client() as client:
                while True:
                    if not self._guard.is_open:
                        await self._wait_open()
                    else:
                        await self._keep(client)
                        await asyncio.sleep(POLL_S)
        finally:
            self._files.withdraw()
            self._files.set_ready(False)

    def _client(self) -> ServerClient:
        return ServerClient(self._address, tls=False, timeout_s=HEALTH_S)

    async def _wait_open(self) -> None:
        self._log.info("waiting", keyring=self._guard.name)
        with self._said_once():
            self._withdraw("the keyring is locked")
            self._set_ready(False)
        await self._guard.wait_open(WAIT_S)

    async def _keep(self, client: ServerClient) -> None:
        seen = await look(client)
        if not self._guard.is_open:  # locked meanwhile
            return
        with self._said_once():
            if wants_key(seen, placed=bool(self._placed)):
                self._place(seen)
            else:
                self._withdraw(seen.value)
                self._explain(seen)
            self._set_ready(True)

    def _place(self, seen: Seen) -> None:
        keys = newest(self._guard, self._key)
        ids = tuple(key.key_id for key in keys)
        if ids != self._placed or not self._files.key.exists():
            self._files.place(keys)
            self._placed = ids
            self._explained = True
            self._log.info("key placed", file=str(self._files.key), ids=ids, server=seen.value)

    def _withdraw(self, why: str) -> None:
        if self._placed:
            self._files.withdraw()
            self._placed = ()
            self._log.info("key withdrawn", file=str(self._files.key), why=why)

    def _explain(self, seen: Seen) -> None:
        if seen is Seen.UNSEALED and not self._explained:
            self._explained = True
            why = f"the server at {self._address} is unsealed already"
            self._log.info("no key placed", why=why)

    def _set_ready(self, ready: bool) -> None:
        if ready == self._ready:
            return
        self._files.set_ready(ready)
        self._ready = ready
        if ready:
            self._notifier.ready(f"{self._guard.name} is open")
        else:
            self._notifier.status(f"{self._guard.name} is locked")

    @contextmanager
    def _said_once(self) -> Iterator[None]:
        """A full tmpfs is no end: the next look tries again."""
        try:
            yield
        except WriteFailed as error:
            if error.seen != self._failed:
                self._log.error("not written", seen=error.seen, next=error.next_step)
            self._failed = error.seen
        else:
            self._failed = ""

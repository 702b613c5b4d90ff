"""All the keyrings of one process, and the tasks that keep them open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from kluis.engine.guard import Guard, Retry
from kluis.errors import KluisError, NotFound, RolledBack, ServiceError, UsageError
from kluis.keyring.document import Document, Token
from kluis.service.blueprint import Blueprint
from kluis.store.base import Store

Draw = Callable[[], Blueprint]

_AFTER_FAULT_S: Final = 1.0


class House:
    """Guards by keyring. ``changing`` serialises everything that changes one of them."""

    def __init__(
        self,
        draw: Draw,
        *,
        accept_rollback: bool = False,
        retry: Retry | None = None,
        log: Any = None,
    ) -> None:
        """Raises KluisError when a document can't be read."""
        self.blueprint = draw()
        self.guards: dict[str, Guard] = {}
        self.changing = asyncio.Lock()
        self.serving = False
        self._draw = draw
        self._retry = retry or Retry()
        self._log = log
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.rolled_back: dict[str, RolledBack] = {}
        for name, store in self.blueprint.stores.items():
            try:
                document = self._load(store, name, accept_rollback=accept_rollback)
            except NotFound:
                continue
            self.admit(Guard(document, store, self.blueprint.anchors, self._retry, self._changed))

    def _load(self, store: Store, name: str, *, accept_rollback: bool) -> Document:
        try:
            return store.load(name)
        except RolledBack as error:
            if not accept_rollback:
                raise
            self.rolled_back[name] = error
            if self._log is not None:
                self._log.warning(
                    "rollback accepted", keyring=name, seen=error.seen, means=error.means
                )
        return store.load(name, accept_rollback=True)

    def guard(self, name: str) -> Guard:
        """The guard of a keyring. Raises UsageError or NotFound."""
        if name in self.guards:
            return self.guards[name]
        if name in self.blueprint.wanted:
            raise NotFound(
                f"the keyring {name} was not made yet",
                "kluis.toml declares it, and nobody applied that",
                "kluis apply makes it",
            )
        declared = ", ".join(sorted(self.blueprint.wanted)) or "none"
        raise UsageError(
            f"there is no keyring {name}", f"kluis.toml declares: {declared}", "correct the name"
        )

    def admit(self, guard: Guard) -> None:
        """Guard one more keyring; when the house serves, keep it open from now on."""
        self.guards[guard.name] = guard
        if self.serving:
            self._tasks[guard.name] = asyncio.create_task(self._keep_open(guard))

    def new_guard(self, name: str, document: Any) -> Guard:
        """A guard for a keyring that was just made."""
        blueprint = self.blueprint
        return Guard(
            document, blueprint.stores[name], blueprint.anchors, self._retry, self._changed
        )

    def redraw(self) -> None:
        """Take the configuration as it is now. Raises KluisError; then all stays as it was.

        The caller holds ``changing``: what is being applied must not change under it.
        """
        blueprint = self._draw()
        if self.serving:
            self._refuse_other_folders(blueprint)
        self.blueprint = blueprint
        for guard in self.guards.values():
            guard.anchors = self.blueprint.anchors
            guard.wake()

    def _refuse_other_folders(self, blueprint: Blueprint) -> None:
        """This process has the right to work on the folders that it was started with."""
        ours = set(self.blueprint.folders.values())
        for name, folder in blueprint.folders.items():
            if folder != self.blueprint.folders.get(name, folder) or folder not in ours:
                raise ServiceError(
                    f"the keyring {name} is to rest in {folder}",
                    "the running service does not hold that folder",
                    "move the documents if there are any, then restart kluis serve",
                )

    async def serve(self) -> None:
        """Keep every keyring open until cancelled, and announce what expires."""
        self.serving = True
        for guard in self.guards.values():
            self._tasks[guard.name] = asyncio.create_task(self._keep_open(guard))
        try:
            while True:
                self._announce_expiries()
                await asyncio.sleep(24 * 3600)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _keep_open(self, guard: Guard) -> None:
        """Whatever happens, somebody keeps trying: a fault of kluis is on record, not the end."""
        while True:
            try:
                await guard.keep_open()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not be silent
                if self._log is not None:
                    self._log.error("fault", keyring=guard.name, error=type(error).__name__)
                await asyncio.sleep(_AFTER_FAULT_S)

    async def open_once(self) -> None:
        """Ask the anchors of every locked keyring once."""
        await asyncio.gather(*(guard.try_open() for guard in self.guards.values()))

    def tokens_of(self, client: str) -> tuple[Token, ...]:
        """The tokens that a client has in any keyring. Raises Locked.

        Only an open keyring's word counts: a locked one's document could be anybody's.
        """
        locked = None
        for guard in self.guards.values():
            if known := guard.document.clients.get(client):
                if guard.is_open:
                    return known.tokens
                locked = guard
        if locked is not None:
            locked.require_open()
        return ()

    def _announce_expiries(self) -> None:
        for name, days in self.expiries().items():
            if days < 30 and self._log is not None:
                self._log.warning("token expires", client=name, days=days)

    def expiries(self) -> dict[str, int]:
        """Days until the last token of a client expires, for clients whose tokens do."""
        found: dict[str, int] = {}
        for guard in self.guards.values():
            for name, client in guard.document.clients.items():
                ends = [token.expires for token in client.tokens]
                if ends and None not in ends:
                    last = datetime.fromisoformat(max(end for end in ends if end))
                    found[name] = (last - datetime.now(UTC)).days
        return found

    def _changed(self, keyring: str, event: str) -> None:
        if self._log is not None:
            self._log.info(event, keyring=keyring)


def now() -> str:
    """The time for a document: RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def explain_error(error: KluisError) -> dict[str, str]:
    """An error as it crosses the control socket and stands in JSON output."""
    return {
        "class": type(error).__name__,
        "seen": error.seen,
        "means": error.means,
        "next": error.next_step,
    }

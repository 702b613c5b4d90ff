"""All the keyrings of one process, and the tasks that keep them open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kluis.anchors.base import Notice
from kluis.engine import status
from kluis.engine.guard import Guard, Rhythm
from kluis.engine.status import Event
from kluis.errors import KluisError, NotFound, RolledBack, ServiceError, UsageError
from kluis.keyring import tokens
from kluis.keyring.document import Document, Token
from kluis.keyring.strict import JSON
from kluis.service.blueprint import Blueprint
from kluis.store.base import Store
from kluis.store.process_lock import ProcessLock

if TYPE_CHECKING:
    from kluis.facade.audit import AuditLog
    from kluis.servers.watch.watcher import Watcher
    from kluis.service.watch.watching import Watching

Draw = Callable[[], Blueprint]

_AFTER_FAULT_S: Final = 1.0


class House:
    """Guards by keyring. ``changing`` serialises everything that changes one of them."""

    def __init__(
        self,
        draw: Draw,
        *,
        alone: bool = False,
        accept_rollback: bool = False,
        rhythm: Rhythm | None = None,
        log: Any = None,
    ) -> None:
        """``alone``: no other process may change these keyrings while the house stands.

        Raises KluisError when a document can't be read, or another process works on it.
        """
        self.blueprint = draw()
        self._locks: dict[Path, ProcessLock] | None = {} if alone else None
        self._hold(self.blueprint)
        self.guards: dict[str, Guard] = {}
        self.changing = asyncio.Lock()
        self.runs: set[tuple[str, str]] = set()
        """Keyring and key of the server that this process started, if it did."""
        self.serving = False
        self.audit: AuditLog | None = None
        """The facade's, while one serves: nobody else may write to that log."""
        self.watcher: Watcher | None = None
        """What keeps the declared servers unsealed, while this process does."""
        self.watching: Watching | None = None
        """And what is told of it."""
        self.redrawn = asyncio.Event()
        """Set whenever the configuration was taken anew; cleared by who waits for that."""
        self._draw = draw
        self._rhythm = rhythm or Rhythm()
        self._log = log
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.rolled_back: dict[str, RolledBack] = {}
        for name, store in self.blueprint.stores.items():
            try:
                document = self._load(store, name, accept_rollback=accept_rollback)
            except NotFound:
                continue
            self.admit(self._guard(document, store))

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

    def new_guard(self, document: Document) -> Guard:
        """A guard for a keyring that was just made."""
        return self._guard(document, self.blueprint.stores[document.name])

    def _guard(self, document: Document, store: Store) -> Guard:
        anchors = self.blueprint.anchors
        return Guard(document, store, anchors, self._rhythm, self._report, self.changing)

    def redraw(self) -> None:
        """Take the configuration as it is now. Raises KluisError; then all stays as it was.

        The caller holds ``changing``: what is being applied must not change under it.
        """
        blueprint = self._draw()
        self._refuse_moves(blueprint)
        self._hold(blueprint)
        if self.watching is not None:
            self.watching.take(blueprint)
        self.blueprint = blueprint.keeping(self.blueprint)
        for guard in self.guards.values():
            guard.anchors = self.blueprint.anchors
            if not guard.is_open:
                guard.wake()
        self.redrawn.set()

    def _refuse_moves(self, blueprint: Blueprint) -> None:
        for name in self.guards:
            before, now_at = self.blueprint.folders.get(name), blueprint.folders.get(name)
            if before and now_at and before != now_at:
                raise ServiceError(
                    f"the keyring {name} is to move from {before} to {now_at}",
                    "it is in use",
                    "stop kluis, move the folder, then start it again",
                )

    def _hold(self, blueprint: Blueprint) -> None:
        """Take the right to work on the folders. Raises AlreadyRunning."""
        if self._locks is not None:
            for folder in sorted(set(blueprint.folders.values()) - set(self._locks)):
                self._locks[folder] = ProcessLock(folder / "serve.lock")

    def close(self) -> None:
        """Let go of the folders."""
        for lock in (self._locks or {}).values():
            lock.release()

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
                if end := tokens.last_expiry(client):
                    found[name] = (datetime.fromisoformat(end) - datetime.now(UTC)).days
        return found

    def watch(self, watching: Watching) -> None:
        """Servers are watched in this process from now on."""
        self.watching, self.watcher = watching, watching.watcher

    def _report(self, event: Event) -> None:
        if event.what == status.OPENED and self.watcher is not None:
            self.watcher.wake()  # the shares that it lacked may be readable now
        if self._log is None:
            return
        say = self._log.warning if event.what in status.WARNINGS else self._log.info
        about = {"anchor": event.anchor, "seen": event.seen} if event.anchor else {}
        say(event.what, keyring=event.keyring, **about)


def explain_error(error: KluisError) -> dict[str, str]:
    """An error as it crosses the control socket and stands in JSON output."""
    return {
        "class": type(error).__name__,
        "seen": error.seen,
        "means": error.means,
        "next": error.next_step,
    }


def explain_notice(notice: Notice | None) -> JSON:
    """What is noticed of an anchor that works, as it stands in JSON; None when there is nothing."""
    if notice is None:
        return None
    return {"seen": notice.seen, "means": notice.means, "next": notice.next_step}

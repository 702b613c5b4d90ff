"""One keyring in one process: open, or locked and on its way to open.

States
- *locked*: the anchors are asked again and again, each at its own pace, and at once when one is
  back; a call of ``wake`` asks all of them now. One that hangs holds up none of the others.
- *held*: locked by a person's hand; only ``unlock`` or a restart lets it open again.
- *open*: the root secret is in memory. Every leaf is opened for real from time to time, and one
  that sealing anew would heal is healed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Literal

from kluis.anchors.base import Anchor
from kluis.engine import healing, status
from kluis.engine.asking import keep_asking
from kluis.engine.clock import now
from kluis.engine.healing import Healed
from kluis.engine.health import Health, heals
from kluis.engine.opening import Opened, Opening, not_sealed
from kluis.engine.status import AnchorStatus, Event
from kluis.engine.survey import Finding
from kluis.engine.turns import Turns
from kluis.errors import KluisError, Locked, UnknownKey
from kluis.keyring import tree
from kluis.keyring.document import Document
from kluis.keyring.keys import Key, TransitKey
from kluis.keyring.quorum import Needs
from kluis.store.base import Store


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a locked keyring knocks on its anchors, and an open one surveys them: seconds.

    A leaf that fails is healed when it failed in ``sure_after`` surveys in a row.
    """

    knock_s: float = 0.5
    survey_s: float = 60.0
    sure_after: int = 3


class Guard:
    """Guards one keyring. ``changing`` is held by whoever changes it."""

    def __init__(
        self,
        document: Document,
        store: Store,
        anchors: Mapping[str, Anchor],
        rhythm: Rhythm = Rhythm(),
        report: Callable[[Event], None] = lambda _event: None,
        changing: asyncio.Lock | None = None,
    ) -> None:
        self.document = document
        self.anchors = anchors
        self.opened: Opened | None = None
        self.held = False
        self.locks = 0  # how often a person locked it
        self._store = store
        self._rhythm = rhythm
        self._report = report
        self._changing = changing or asyncio.Lock()
        self._turns = Turns()
        self._opening = Opening(document, self._found)
        self.health = Health(document.name, report)
        self._transit: dict[str, TransitKey] = {}
        self._is_open = asyncio.Event()
        self._wake = asyncio.Event()

    @property
    def name(self) -> str:
        """The keyring's name."""
        return self.document.name

    @property
    def is_open(self) -> bool:
        """Whether the root secret is in memory."""
        return self.opened is not None

    def require_open(self) -> Opened:
        """The open keyring. Raises Locked."""
        if self.opened is None:
            raise Locked(
                f"the keyring {self.name} is locked",
                "its root secret is not in memory",
                f"kluis status says what it waits for; kluis unlock {self.name}",
            )
        return self.opened

    def transit(self, name: str) -> TransitKey:
        """A ``transit`` key of the open keyring. Raises Locked or UnknownKey."""
        key = self._transit.get(name)
        if key is None:
            raise self._unknown(name, "transit")
        return key

    def key(self, name: str, kind: str) -> Key:
        """A key of the open keyring, of this kind. Raises Locked or UnknownKey."""
        key = self.require_open().contents.keys.get(name)
        if key is None or key.kind != kind:
            raise self._unknown(name, kind)
        return key

    def _unknown(self, name: str, kind: str) -> UnknownKey:
        key = self.require_open().contents.keys.get(name)
        found = "there is none" if key is None else f"it is of kind {key.kind}"
        return UnknownKey(
            f"{self.name} has no {kind} key {name}", found, "kluis key list shows the keys"
        )

    async def wait_open(self, timeout_s: float) -> bool:
        """Whether the keyring is open, at the latest after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.is_open:  # a lock may come between the opening and this task
                    await self._is_open.wait()
        except TimeoutError:
            return False
        return True

    async def keep_open(self) -> None:
        """Open and survey for as long as the task lives."""
        try:
            await self._keep_open()
        finally:
            self._opening.cancel()
            if self.opened is None and self._opening.opened is not None:  # a fault came in between
                self._begin(self.document)

    async def _keep_open(self) -> None:
        while True:
            self._wake.clear()
            if self.opened is not None:
                await self._until_woken(self._survey_and_heal(self.opened))
            elif self.held:
                await self._wake.wait()
            else:
                await self._until_woken(self._keep_asking())

    async def _until_woken(self, work: Coroutine[None, None, None]) -> None:
        """Work, then rest until the next survey; to be woken ends both."""
        tasks = {asyncio.create_task(self._and_rest(work)), asyncio.create_task(self._wake.wait())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()

    async def _and_rest(self, work: Coroutine[None, None, None]) -> Literal[True]:
        await work
        rest_s = self._rhythm.survey_s
        if self.opened is not None:
            rest_s = self.health.next_s(self.opened, self.anchors, self._turns, rest_s)
        await asyncio.sleep(rest_s)
        return True

    async def _keep_asking(self) -> None:
        await keep_asking(
            self._opening, self.anchors, self._turns, self._rhythm.knock_s, self._asked
        )

    def _asked(self, name: str, finding: Finding) -> None:
        self.health.tell({name: finding}, self.anchors)

    def wake(self) -> None:
        """Ask the anchors now."""
        self._wake.set()

    async def try_open(self) -> bool:
        """Ask every machine anchor once, at the same time; whether the keyring is open.

        A lock by hand holds: then nobody is asked.
        """
        if self.opened is None and not self.held:
            await self._opening.ask(self.anchors)
        return self.is_open

    def _found(self, opened: Opened) -> None:
        """An anchor opened it. An opening that is over was cancelled and calls no more."""
        self.adopt(opened)

    def _begin(self, document: Document) -> None:
        self._opening.cancel()
        self._opening = Opening(document, self._found)

    def enter_share(self, line: str) -> str:
        """Take a paper share; the name of the people it is of. Raises ShareError."""
        name, opened = self._opening.enter_share(line)
        self._entered(opened)
        return name

    async def enter_passphrase(self, name: str, passphrase: str) -> None:
        """Take a passphrase that a person typed. Raises AnchorError."""
        opening = self._opening
        opened = await opening.enter_passphrase(name, passphrase, self.anchors.get(name))
        if opening is self._opening:
            self._entered(opened)

    def _entered(self, opened: Opened | None) -> None:
        if opened is not None and self.opened is None:
            self.held = False
            self.adopt(opened)

    def release(self, locks: int | None = None) -> None:
        """End a hold by hand, and ask the anchors at once.

        ``locks`` is the count that the caller saw at first: a lock since then holds.
        """
        if locks in (None, self.locks):
            self.held = False
            self.wake()

    def lacks(self) -> tuple[tuple[str, ...], ...]:
        """The sets of anchors of which each would open the keyring now; none when it is open."""
        state = self._opening.state()
        return state.sets if isinstance(state, Needs) and not self.is_open else ()

    def progress(self) -> dict[str, tuple[int, int]]:
        """For every people leaf: shares entered, shares needed."""
        return {
            name: (tray.entered, tray.threshold) for name, (_, tray) in self._opening.trays.items()
        }

    def people(self) -> list[tuple[int, int, int]]:
        """For every people leaf: shares entered, shares needed, shares issued."""
        leaves = (leaf for _, leaf in tree.leaves(self.document.tree))
        return [
            (self.progress()[leaf.name][0], leaf.threshold, leaf.shares)
            for leaf in leaves
            if isinstance(leaf, tree.PeopleLeaf)
        ]

    def adopt(self, opened: Opened) -> None:
        """Take an opened or newly written keyring as the present one."""
        was_open = self.is_open
        self.health.learn(self._opening)
        self.document, self.opened = opened.document, opened
        self._begin(opened.document)
        self._transit = {
            name: TransitKey(key)
            for name, key in opened.contents.keys.items()
            if key.kind == "transit"
        }
        self._is_open.set()
        self.wake()
        if not was_open:
            self._report(Event(self.name, status.OPENED))
            self._store.remember(opened.document)

    def save(self, opened: Opened) -> None:
        """Write a changed document, then take it as the present one. Raises StoreError.

        Raises Locked when a person locked the keyring meanwhile: a change must not undo that.
        """
        self.require_open()
        self._store.save(opened.document, after=opened.document.revision - 1)
        self.health.written(self.document, opened.document)
        self.adopt(opened)

    def lock(self) -> None:
        """Drop the secrets, and stay locked until a person unlocks."""
        opened = self.opened
        self.held = True
        self.locks += 1
        self.opened = None
        self._transit = {}
        self._is_open.clear()
        self.health.forget()
        self._begin(self.document)
        self.wake()
        if opened is not None:
            opened.wipe()
            self._report(Event(self.name, status.LOCKED))

    async def survey(self) -> dict[str, Finding]:
        """Open every leaf for real, now; what was found of each. Raises Locked."""
        opened = self.require_open()
        return await self.health.survey(opened, self.anchors, self._turns, at_once=True)

    async def _survey_and_heal(self, opened: Opened) -> None:
        found = await self.health.survey(opened, self.anchors, self._turns, at_once=False)
        self.health.tell(found, self.anchors)
        if sick := self.health.due(found, self.anchors, self._rhythm.sure_after):
            await self._heal_alone(sick)

    async def _heal_alone(self, names: Mapping[str, str]) -> None:
        try:
            await self.heal(names)
        except KluisError as error:  # not the end: a later survey tries again
            self.health.tell_not_healed(dict.fromkeys(names, error))

    async def heal(self, names: Mapping[str, str]) -> Healed:
        """Seal these leaves anew, and write that; ``names`` says why. Raises Locked or StoreError.

        Nobody waits for the anchors: ``changing`` is held for the writing only. A document that
        was written meanwhile is not undone: the store then raises Conflict.
        """
        for name in names:
            self.health.patience.tried(name)
        healed = await healing.heal(self.require_open(), names, self.anchors, now())
        if healed.opened is not None:
            async with self._changing:
                self.save(healed.opened)
        self.health.tell_healed(healed.names, names)
        self.health.tell_not_healed(healed.failures)
        return healed

    def _needs_person(self, name: str) -> bool:
        anchor = self.anchors.get(name)
        return anchor is not None and anchor.needs_person

    def anchor_statuses(self) -> dict[str, AnchorStatus]:
        """What is known of every anchor of the rule."""
        return {leaf.name: self._status_of(leaf) for _, leaf in tree.leaves(self.document.tree)}

    def _status_of(self, leaf: tree.Leaf) -> AnchorStatus:
        name, unlock = leaf.name, f"kluis unlock {self.name}"
        if isinstance(leaf, tree.PeopleLeaf):
            entered, _ = self.progress()[name]
            return status.of_people(leaf, entered, "" if self.is_open else unlock)
        failure = self._opening.failures.get(name)
        finding = Finding(failure) if failure else self.health.findings.get(name)
        if leaf.sealed is None and (finding is None or finding.failure is None):
            finding = Finding(not_sealed())
        if finding is not None:
            return status.of_finding(finding, heals(self.anchors, name))
        if name in self._opening.answered:
            return status.OK
        if self._needs_person(name):
            return status.of_passphrase("" if self.is_open else f"{unlock} --passphrase {name}")
        return status.of_unasked(held=self.held, unlock=unlock)

"""One keyring in one process: open, or locked and on its way to open.

States
- *locked*: the anchors are asked again and again, at first every half second, then up to every
  ten, with jitter; a call of ``wake``, or an anchor that is back, asks at once. One that hangs
  holds up none of the others.
- *held*: locked by a person's hand; only ``unlock`` or a restart lets it open again.
- *open*: the root secret is in memory. Every leaf is opened for real from time to time, so that
  what ``status`` says of an anchor was tried, not guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kluis.anchors.base import Anchor
from kluis.engine import status
from kluis.engine.opening import Opened, Opening, not_sealed, open_leaf, wrong_answer
from kluis.engine.status import AnchorStatus
from kluis.errors import AnchorError, Locked, Missing, Refused, UnknownKey, Unreachable
from kluis.keyring import tree
from kluis.keyring.document import Document
from kluis.keyring.keys import Key, TransitKey
from kluis.keyring.quorum import Needs
from kluis.store.base import Store


@dataclass(frozen=True, slots=True)
class Retry:
    """How often anchors are asked: seconds."""

    first_s: float = 0.5
    last_s: float = 10.0
    probe_s: float = 0.5
    survey_s: float = 60.0

    def delay_s(self, attempt: int) -> float:
        """The wait after the n-th failure in a row, counted from 0, with full jitter above half."""
        bound: float = min(self.last_s, self.first_s * 2.0 ** min(attempt, 16))
        return bound * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret


class Guard:
    """Guards one keyring."""

    def __init__(
        self,
        document: Document,
        store: Store,
        anchors: Mapping[str, Anchor],
        retry: Retry = Retry(),
        on_change: Callable[[str, str], None] = lambda _keyring, _event: None,
    ) -> None:
        self.document = document
        self.anchors = anchors
        self.opened: Opened | None = None
        self.held = False
        self.locks = 0  # how often a person locked it
        self._store = store
        self._retry = retry
        self._on_change = on_change
        self._opening = Opening(document, self._found)
        self._surveyed: dict[str, AnchorError | None] = {}
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

    async def _keep_open(self) -> None:
        attempt = 0
        while True:
            self._wake.clear()
            if self.opened is not None:
                attempt = 0
                await self._survey_until_woken(self.opened)
            elif self.held:
                await self._woken_within(self._retry.survey_s)
            else:
                self._opening.start(self.anchors)
                await self._woken_or_one_is_back(self._retry.delay_s(attempt))
                attempt += 1

    async def _woken_or_one_is_back(self, seconds: float) -> None:
        events = {
            asyncio.create_task(self._wake.wait()),
            asyncio.create_task(self._until_one_is_back()),
        }
        try:
            await asyncio.wait(events, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for event in events:
                event.cancel()

    async def _until_one_is_back(self) -> None:
        """Returns when an anchor that was away could open now, where asking costs nothing."""
        while True:
            await asyncio.sleep(self._retry.probe_s)
            for name, failure in list(self._opening.failures.items()):
                anchor = self.anchors.get(name)
                away = isinstance(failure, Unreachable | Missing | Refused)
                if away and anchor is not None and anchor.probe_is_free:
                    with contextlib.suppress(AnchorError):
                        return await anchor.probe()

    async def _survey_until_woken(self, opened: Opened) -> None:
        surveying = asyncio.create_task(self._survey(opened))
        try:
            while not await self._woken_within(self._retry.survey_s):
                if surveying.done():  # else one hangs: its deadline will tell
                    break
        finally:
            surveying.cancel()

    async def _woken_within(self, seconds: float) -> bool:
        waking = asyncio.create_task(self._wake.wait())
        try:
            done, _ = await asyncio.wait({waking}, timeout=seconds)
        finally:
            waking.cancel()
        return bool(done)

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
        self._surveyed.update(self._opening.failures)
        self._surveyed.update(dict.fromkeys(self._opening.answered - set(self._opening.failures)))
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
            self._on_change(self.name, "opened")
            self._store.remember(opened.document)

    def save(self, opened: Opened) -> None:
        """Write a changed document, then take it as the present one. Raises StoreError.

        Raises Locked when a person locked the keyring meanwhile: a change must not undo that.
        """
        if self.held:
            self.require_open()
        self._store.save(opened.document, after=opened.document.revision - 1)
        self._surveyed.clear()
        self.adopt(opened)

    def lock(self) -> None:
        """Drop the secrets, and stay locked until a person unlocks."""
        opened = self.opened
        self.held = True
        self.locks += 1
        self.opened = None
        self._transit = {}
        self._is_open.clear()
        self._surveyed.clear()
        self._begin(self.document)
        if opened is not None:
            opened.wipe()
            self._on_change(self.name, "locked")

    async def survey(self) -> dict[str, AnchorError | None]:
        """Open every leaf for real; what each anchor said, None when it gave the right secret."""
        return await self._survey(self.require_open())

    async def _survey(self, opened: Opened) -> dict[str, AnchorError | None]:
        leaves = opened.document.tree, opened.contents.leaves
        machine = {
            leaf.name: self._survey_one(opened.document, path, leaf, leaves[1][path].reveal())
            for path, leaf in tree.leaves(leaves[0])
            if isinstance(leaf, tree.AnchorLeaf) and not self._needs_person(leaf.name)
        }
        outcomes = await asyncio.gather(*machine.values())
        found = dict(zip(machine, outcomes, strict=True))
        if self.opened is opened:
            self._surveyed = found
        return found

    async def _survey_one(
        self, document: Document, path: tree.Path, leaf: tree.AnchorLeaf, expected: bytes
    ) -> AnchorError | None:
        try:
            secret = await open_leaf(document, path, leaf, self.anchors.get(leaf.name))
        except AnchorError as error:
            return error
        return None if secret.reveal() == expected else wrong_answer()

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
        failure = self._opening.failures.get(name) or self._surveyed.get(name)
        if failure is not None or leaf.sealed is None:
            return status.of_failure(failure or not_sealed())
        if name in self._surveyed or name in self._opening.answered:
            return status.OK
        if self._needs_person(name):
            return status.of_passphrase("" if self.is_open else f"{unlock} --passphrase {name}")
        return status.of_unasked(held=self.held, unlock=unlock)

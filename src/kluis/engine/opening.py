"""Opening a keyring: all anchors at once, the first sufficient quorum wins.

No anchor is waited for: as soon as the body's tag accepts a candidate, the calls that still run
are cancelled. Answers and entered shares stay, so that people can come one after another and an
anchor that was away can be asked again, also while the call of another one still hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kluis.anchors.base import Anchor
from kluis.anchors.passphrase import PassphraseAnchor
from kluis.errors import (
    AnchorError,
    Damaged,
    DocumentError,
    ForeignShare,
    Misconfigured,
    NotSealed,
    UsageError,
)
from kluis.keyring import body, paper, tree
from kluis.keyring.body import Contents
from kluis.keyring.document import Document
from kluis.keyring.quorum import Quorum, Satisfied, State
from kluis.keyring.strict import JSON
from kluis.secret import Secret

Sealed = Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Opened:
    """An open keyring: what the tag of its body has proven."""

    document: Document
    root: Secret
    contents: Contents

    def copy(self) -> Opened:
        """The same with secrets of its own, so that a lock meanwhile does not wipe them."""
        leaves = {path: Secret(s.reveal()) for path, s in self.contents.leaves.items()}
        return replace(
            self,
            root=Secret(self.root.reveal()),
            contents=replace(self.contents, leaves=leaves),
        )

    def wipe(self) -> None:
        """Overwrite the root secret and those of the leaves with zeros."""
        self.root.wipe()
        for secret in self.contents.leaves.values():
            secret.wipe()


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of an anchor for one leaf."""

    anchor: Anchor
    task: asyncio.Task[None]


class Opening:
    """The way of one document from locked to open.

    ``on_open`` is called when an anchor that was asked opens it; the one who enters a share or a
    passphrase gets the open keyring from that call.
    """

    def __init__(
        self, document: Document, on_open: Callable[[Opened], None] = lambda _opened: None
    ) -> None:
        self.document = document
        self.opened: Opened | None = None
        self.failures: dict[str, AnchorError] = {}
        self.answered: set[str] = set()
        self._on_open = on_open
        self._quorum = Quorum(document.tree)
        self._calls: dict[tree.Path, _Call] = {}
        self.trays = {
            leaf.name: (path, paper.PaperTray(leaf))
            for path, leaf in tree.leaves(document.tree)
            if isinstance(leaf, tree.PeopleLeaf)
        }

    @property
    def contradicted(self) -> bool:
        """Whether answers are enough, and yet open nothing: one is wrong, or the document is."""
        return self.opened is None and isinstance(self._quorum.state(), Satisfied)

    def state(self) -> State:
        """What the quorum machine says; see keyring.quorum."""
        return self._quorum.state()

    async def ask(self, anchors: Mapping[str, Anchor]) -> Opened | None:
        """Ask every machine anchor at once; the keyring, as soon as it is open.

        None when all have answered, or were cancelled, and it is not open.
        """
        running = self.start(anchors)
        while self.opened is None and running:  # only these: others may be asked again meanwhile
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        return self.opened

    def start(self, anchors: Mapping[str, Anchor]) -> set[asyncio.Task[None]]:
        """Ask every machine anchor that is not being asked already; the calls, waiting for none."""
        if self.opened is not None:
            return set()
        return {self._start(*asked) for asked in self.askable(anchors)}

    async def ask_one(
        self, path: tree.Path, leaf: tree.AnchorLeaf, anchor: Anchor
    ) -> AnchorError | None:
        """Ask one anchor; its failure, if it failed. A call that runs already is waited for."""
        call = self._start(path, leaf, anchor)
        await asyncio.wait({call})
        if not call.cancelled():
            call.result()  # a fault must not be taken for an answer
        return self.failures.get(leaf.name)

    def askable(
        self, anchors: Mapping[str, Anchor]
    ) -> list[tuple[tree.Path, tree.AnchorLeaf, Anchor]]:
        """The leaves that can be asked, with their anchors; of the others it is known why not."""
        found = []
        for path, leaf in tree.machine_leaves(self.document.tree):
            anchor = anchors.get(leaf.name)
            if anchor and anchor.needs_person:
                continue
            try:
                found.append((path, leaf, ready(leaf, anchor)[1]))
            except AnchorError as error:
                self.failures[leaf.name] = bare(error)
                self._quorum.fail(path)
        return found

    def _start(self, path: tree.Path, leaf: tree.AnchorLeaf, anchor: Anchor) -> asyncio.Task[None]:
        call = self._calls.get(path)
        if call is not None and not call.task.done():
            if call.anchor is anchor:
                return call.task
            call.task.cancel()  # the configuration was read anew
        task = asyncio.create_task(self._ask_one(path, leaf, anchor))
        self._calls[path] = _Call(anchor, task)
        return task

    def cancel(self) -> None:
        """Break off the calls that still run; what they answer all the same counts no more."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.task.cancel()

    async def _ask_one(self, path: tree.Path, leaf: tree.AnchorLeaf, anchor: Anchor) -> None:
        try:
            secret = await open_leaf(self.document, path, leaf, anchor)
        except AnchorError as error:
            self.failures[leaf.name] = bare(error)
            self._quorum.fail(path)
            return
        del self._calls[path]  # this call is over: opening cancels the others
        self.failures.pop(leaf.name, None)
        self.answered.add(leaf.name)
        if opened := self._try(path, secret):
            self._on_open(opened)

    def enter_share(self, line: str) -> tuple[str, Opened | None]:
        """Take a paper share; the people's name, and the keyring if it is open now.

        Raises ShareError. A share that does not fit stays out; after WrongShares the entered
        ones stay, for a good set among them and a later one is still found.
        """
        share = paper.read(line)
        for name, (path, tray) in self.trays.items():
            if tray.belongs(share):
                tray.add(share)
                if tray.missing:
                    return name, None
                return name, self._try(path, tray.secret())
        raise ForeignShare(
            f"this share is of no set of {self.document.name}",
            "it may be of an older issue, or of another keyring",
            "look for the share that was printed last",
        )

    async def enter_passphrase(
        self, name: str, passphrase: str, anchor: Anchor | None
    ) -> Opened | None:
        """Take a typed passphrase; the keyring, if it is open now. Raises AnchorError."""
        path, leaf = self._passphrase_leaf(name)
        if not isinstance(anchor, PassphraseAnchor):
            raise UsageError(
                f"{name} takes no passphrase", "it is of another kind", "kluis status shows them"
            )
        secret = await open_leaf(self.document, path, leaf, anchor.knowing(passphrase))
        self.answered.add(name)
        return self._try(path, secret)

    def _passphrase_leaf(self, name: str) -> tuple[tree.Path, tree.AnchorLeaf]:
        for path, leaf in tree.machine_leaves(self.document.tree):
            if leaf.name == name:
                return path, leaf
        raise UsageError(
            f"{name} is no anchor of {self.document.name}",
            "its rule does not name it",
            "kluis status shows the anchors",
        )

    def _try(self, path: tree.Path, secret: Secret) -> Opened | None:
        for candidate in self._quorum.answer(path, secret):
            try:
                contents = body.open_(self.document, candidate)
            except DocumentError:  # not this candidate; ``contradicted`` says if none is left
                continue
            self._name_the_wrong(contents)
            self.opened = Opened(self.document, candidate, contents)
            self.cancel()
            break
        return self.opened

    def _name_the_wrong(self, contents: Contents) -> None:
        for name in self._quorum.wrong(contents.leaves):
            self.failures[name] = wrong_answer()


async def open_leaf(
    document: Document, path: tree.Path, leaf: tree.AnchorLeaf, anchor: Anchor | None
) -> Secret:
    """What one leaf holds, by its anchor. Raises AnchorError."""
    sealed, anchor = ready(leaf, anchor)
    return await anchor.open(sealed, document.context(path, leaf.kind))


def ready(leaf: tree.AnchorLeaf, anchor: Anchor | None) -> tuple[Sealed, Anchor]:
    """What the leaf holds sealed, and the anchor that can open it. Raises AnchorError."""
    if leaf.sealed is None:
        raise not_sealed()
    if anchor is None:
        raise Misconfigured(
            f"the configuration has no anchor {leaf.name}",
            "the keyring was made with it, and kluis.toml no longer names it",
            f"bring [anchors.{leaf.name}] back, or change 'opens' and run kluis apply",
        )
    if anchor.kind != leaf.kind:
        raise Misconfigured(
            f"{leaf.name} is of kind {anchor.kind} in kluis.toml and {leaf.kind} in the keyring",
            "the anchor was replaced by another kind",
            "run kluis apply",
        )
    return leaf.sealed, anchor


def bare(error: AnchorError) -> AnchorError:
    """An error that is kept: without its traceback, whose frames hold secrets."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def not_sealed() -> NotSealed:
    """The failure of a leaf that was never sealed."""
    return NotSealed(
        "not sealed yet",
        "the anchor was away when the keyring was written",
        "bring it back: a running service then seals it, or kluis heal; a passphrase, kluis apply",
    )


def wrong_answer() -> Damaged:
    """The failure of an anchor that answered with a secret that is not its leaf's."""
    return Damaged(
        "it answered with a wrong secret",
        "the sealed bytes were swapped, or the anchor is not the one that sealed them",
        "find out who changed it; kluis heal seals it anew",
    )

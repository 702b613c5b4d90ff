"""The health of an open keyring's anchors: what surveys find, what is told, what is to be healed.

So what ``status`` says of an anchor was tried, not guessed; and a leaf that would not open at the
next outage is found, and sealed anew, while that is easy.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from kluis.anchors.base import Anchor
from kluis.engine import status
from kluis.engine.healing import Patience
from kluis.engine.opening import Opened, Opening
from kluis.engine.status import Event
from kluis.engine.survey import Finding, look_at
from kluis.engine.turns import Turns
from kluis.errors import KluisError
from kluis.keyring import tree
from kluis.keyring.document import Document
from kluis.secret import Secret


class Health:
    """What is known of the anchors of one keyring."""

    def __init__(self, keyring: str, report: Callable[[Event], None]) -> None:
        self.findings: dict[str, Finding] = {}
        self.patience = Patience()
        self.heals: Counter[tuple[str, str]] = Counter()
        """Leaves that were sealed anew, or could not be: by anchor and outcome."""
        self._keyring = keyring
        self._report = report
        self._told: dict[str, Finding] = {}
        self._failed: Counter[str] = Counter()

    def forget(self) -> None:
        """It was locked: nothing is known any more."""
        self.findings = {}  # a survey that still runs keeps the old one

    def written(self, old: Document, new: Document) -> None:
        """A new document: of leaves that stayed is known what was; the others were just proven."""
        before = {leaf.name: leaf for _, leaf in tree.machine_leaves(old.tree)}
        known, self.findings = self.findings, {}
        for _, leaf in tree.machine_leaves(new.tree):
            if leaf != before.get(leaf.name):
                if leaf.sealed is not None:
                    self.findings[leaf.name] = Finding()
            elif leaf.name in known:
                self.findings[leaf.name] = known[leaf.name]

    def learn(self, opening: Opening) -> None:
        """Take over what was found while the keyring was being opened."""
        failures = opening.failures
        self.findings.update({name: Finding(failure) for name, failure in failures.items()})
        self.findings.update(dict.fromkeys(opening.answered - set(failures), Finding()))

    async def survey(
        self, opened: Opened, anchors: Mapping[str, Anchor], turns: Turns, *, at_once: bool
    ) -> dict[str, Finding]:
        """Open every leaf for real; unless ``at_once``, only those whose anchor's turn it is."""
        document, findings, found = opened.document, self.findings, dict[str, Finding]()

        async def look(
            path: tree.Path, leaf: tree.AnchorLeaf, anchor: Anchor | None, expected: Secret
        ) -> None:
            if anchor is not None:
                turns.asked(anchor)
            finding = await look_at(document, path, leaf, expected, anchor)
            if anchor is not None and finding.failure is not None:
                turns.failed(anchor, finding.failure, was_there=True)
            elif anchor is not None:
                turns.answered(anchor)
            found[leaf.name] = findings[leaf.name] = finding

        looks = []
        for path, leaf in tree.machine_leaves(document.tree):
            anchor = anchors.get(leaf.name)
            if _can_ask(anchor) and (at_once or not _wait_s(anchor, turns)):
                expected = Secret(opened.contents.leaves[path].reveal())  # a lock wipes that one
                looks.append(look(path, leaf, anchor, expected))
        await asyncio.gather(*looks)
        return found

    def next_s(
        self, opened: Opened, anchors: Mapping[str, Anchor], turns: Turns, survey_s: float
    ) -> float:
        """Seconds until the next survey: less when the turn of one was not yet."""
        leaves = [leaf.name for _, leaf in tree.machine_leaves(opened.document.tree)]
        unknown = [anchors.get(name) for name in leaves if name not in self.findings]
        waits = [_wait_s(anchor, turns) for anchor in unknown if _can_ask(anchor)]
        return min([survey_s, *waits])

    def tell(self, found: Mapping[str, Finding], anchors: Mapping[str, Anchor]) -> None:
        """Report what is another than at the last survey."""
        for name, finding in found.items():
            before, self._told[name] = self._told.get(name, Finding()), finding
            if finding.state != before.state:
                what = status.FAILS if finding.failure else status.WORKS_AGAIN
                self._say(what, name, finding.seen)
            if finding.notice is not None and not finding.notice.says_as(before.notice):
                self._say(status.NOTICED, name, finding.notice.seen)
            if finding.ailment != before.ailment and finding.ailment and not heals(anchors, name):
                self._say(status.ASKS, name, finding.ailment)

    def due(
        self, found: Mapping[str, Finding], anchors: Mapping[str, Anchor], sure_after: int
    ) -> dict[str, str]:
        """The leaves that kluis may heal by itself now, and why they should be.

        One that fails must have failed in so many surveys in a row: whoever puts a wrong stick in
        for a minute shall not find the leaf sealed to it.
        """
        for name, finding in found.items():
            self._failed[name] = self._failed[name] + 1 if finding.failure else 0
        return {
            name: finding.ailment
            for name, finding in found.items()
            if finding.ailment and heals(anchors, name) and self.patience.may_try(name)
            if not finding.may_pass or self._failed[name] >= sure_after
        }

    def tell_healed(self, names: Collection[str], why: Mapping[str, str]) -> None:
        """Report leaves that were sealed anew."""
        for name in names:
            self.heals[name, "healed"] += 1
            self._say(status.HEALED, name, why[name])

    def tell_not_healed(self, failures: Mapping[str, KluisError]) -> None:
        """Report leaves that could not be."""
        for name, failure in failures.items():
            self.heals[name, "failed"] += 1
            self._say(status.NOT_HEALED, name, failure.seen)

    def _say(self, what: str, anchor: str, seen: str) -> None:
        self._report(Event(self._keyring, what, anchor, seen))


def _can_ask(anchor: Anchor | None) -> bool:
    return anchor is None or not anchor.needs_person


def _wait_s(anchor: Anchor | None, turns: Turns) -> float:
    return 0.0 if anchor is None else turns.wait_s(anchor)


def heals(anchors: Mapping[str, Anchor], name: str) -> bool:
    """Whether kluis may heal this anchor's leaf without a person's word."""
    anchor = anchors.get(name)
    return anchor is not None and anchor.heals

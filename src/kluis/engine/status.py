"""What is told of a keyring and its anchors: states for ``kluis status``, events for the log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kluis.anchors.base import Notice
from kluis.engine.survey import Finding
from kluis.errors import AnchorError
from kluis.keyring.tree import PeopleLeaf


@dataclass(frozen=True, slots=True)
class AnchorStatus:
    """``state`` is ``ok``, ``waiting``, or the word of an AnchorError.

    ``notice`` is what a person should know though it works.
    """

    state: str
    seen: str
    means: str = ""
    next_step: str = ""
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a keyring, or to one of its anchors, in words for a log."""

    keyring: str
    what: str
    anchor: str = ""
    seen: str = ""


OPENED: Final = "opened"
LOCKED: Final = "locked"
FAILS: Final = "anchor fails"
WORKS_AGAIN: Final = "anchor works again"
NOTICED: Final = "notice"
ASKS: Final = "waits for a person to heal it"
HEALED: Final = "healed"
NOT_HEALED: Final = "could not be healed"
WARNINGS: Final = frozenset({FAILS, NOTICED, ASKS, HEALED, NOT_HEALED})

OK: Final = AnchorStatus("ok", "it opened its leaf")


def of_finding(finding: Finding, heals: bool) -> AnchorStatus:
    """What a survey found of an anchor; ``heals`` when kluis may heal it alone."""
    if finding.failure is not None:
        return of_failure(finding.failure)
    if not finding.outdated:
        return replace(OK, notice=finding.notice)
    means = "it still opens, and is to be sealed anew"
    next_step = "a running service does that" if heals else "kluis heal does that"
    return replace(OK, notice=Notice(finding.outdated, means, next_step))


def of_failure(failure: AnchorError) -> AnchorStatus:
    """An anchor that could not open its leaf."""
    return AnchorStatus(failure.state, failure.seen, failure.means, failure.next_step)


def of_people(leaf: PeopleLeaf, entered: int, unlock: str) -> AnchorStatus:
    """People are always waited for; ``unlock`` is the command for them, if there is need."""
    return AnchorStatus(
        "waiting",
        f"{entered} of {leaf.threshold} shares entered",
        f"{leaf.shares} people have one share each",
        unlock,
    )


def of_passphrase(unlock: str) -> AnchorStatus:
    """A passphrase that nobody entered."""
    return AnchorStatus(
        "waiting", "a passphrase that a person knows", "it is stored nowhere", unlock
    )


def of_unasked(*, held: bool, unlock: str) -> AnchorStatus:
    """An anchor that was not asked: a person locked the keyring, or another way was faster."""
    if held:
        return AnchorStatus(
            "waiting",
            "not asked: somebody locked the keyring by hand",
            "such a lock holds until a person unlocks, or kluis is restarted",
            f"{unlock} asks it again",
        )
    return AnchorStatus("waiting", "not asked yet", "another way was faster", "kluis verify")

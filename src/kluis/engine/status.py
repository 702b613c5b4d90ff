"""What ``kluis status`` says of an anchor: one word of state, and lines for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kluis.errors import AnchorError
from kluis.keyring.tree import PeopleLeaf


@dataclass(frozen=True, slots=True)
class AnchorStatus:
    """``state`` is ``ok``, ``waiting``, or the word of an AnchorError."""

    state: str
    seen: str
    means: str = ""
    next_step: str = ""


OK: Final = AnchorStatus("ok", "it opened its leaf")


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

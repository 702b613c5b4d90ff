"""``kluis explain``: who can open a keyring, what may be lost, what must not be stolen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.cli.status import Keyring
from kluis.errors import UsageError

if TYPE_CHECKING:
    from kluis.keyring.trust import Trust
    from kluis.settings import Configuration

People = Mapping[str, tuple[int, int]]
"""Threshold and number of shares, by the name of the people."""


def explain(keyring: Keyring, config: Config = None, output: Format = terminal.Output.TEXT) -> None:
    """Say who can open a keyring, what may be lost, and what must never be stolen together.

    It reads the rule in kluis.toml and asks no anchor.

    Example: kluis explain homelab
    """
    from kluis.keyring import policy, trust

    settings = Session(config).file.settings
    if keyring not in settings.keyrings:
        raise UsageError(
            f"there is no keyring {keyring}",
            f"kluis.toml declares: {', '.join(sorted(settings.keyrings)) or 'none'}",
            "correct the name",
        )
    rule = policy.parse(settings.keyrings[keyring].opens)
    found = trust.explain(rule)
    if terminal.as_json():
        sets = {"quorums": [*map(list, found.quorums)], "cuts": [*map(list, found.cuts)]}
        terminal.data({keyring: sets})
        return
    terminal.line(f"{keyring} opens with: {policy.show(rule)}")
    for text in sentences(found, _people(settings)):
        terminal.line(text)


def _people(settings: Configuration) -> People:
    return {
        name: (anchor.threshold, anchor.shares)
        for name, anchor in settings.anchors.items()
        if anchor.kind == "people"
    }


def sentences(found: Trust, people: People) -> list[str]:
    """What the rule means, for a person. ``people`` open by some of their shares, not by name."""
    return [
        "",
        "Each of these lines opens it:",
        *(f"  {joined([opening(n, people) for n in names])}" for names in _short(found.quorums)),
        "",
        "It is locked for good only when all of one of these lines is lost:",
        *(f"  {joined([losing(n, people) for n in names])}" for names in _short(found.cuts)),
        "",
        _may_be_lost(found),
        _stolen(found, people),
    ]


def _short(sets: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return sorted(sets, key=lambda names: (len(names), names))


def opening(name: str, people: People) -> str:
    """An anchor as that which opens."""
    if name not in people:
        return name
    threshold, shares = people[name]
    if shares == 1:
        return f"the one share of {name}"
    if threshold == shares:
        return f"all {shares} shares of {name}"
    return f"{threshold} of the {shares} shares of {name}"


def losing(name: str, people: People) -> str:
    """An anchor as that whose loss counts: of people, so many shares that too few are left."""
    if name not in people:
        return name
    threshold, shares = people[name]
    return opening(name, {name: (shares - threshold + 1, shares)})


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _may_be_lost(found: Trust) -> str:
    if not found.may_be_lost:
        needed = joined(found.indispensable)
        is_are = "is" if len(found.indispensable) == 1 else "are"
        return (
            f"{needed} {is_are} needed every time and may not be lost. Add another way with 'or'."
        )
    if found.may_be_lost == 1:
        return "Any one anchor may be lost, whichever it is."
    return f"Any {found.may_be_lost} anchors may be lost at once, whichever they are."


def _stolen(found: Trust, people: People) -> str:
    if not found.alone:
        return "No single theft opens it."
    alone = [opening(name, people) for name in found.alone]
    if len(alone) == 1:
        return f"A thief needs no more than {alone[0]}."
    return f"A thief needs only one of these: {'; '.join(alone)}."

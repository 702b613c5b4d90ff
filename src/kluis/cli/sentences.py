"""What ``kluis explain`` and ``kluis simulate`` say to a person. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kluis.keyring import policy
from kluis.keyring.domains import Domain, Places
from kluis.keyring.trust import Trust
from kluis.keyring.words import People, in_order, joined, losing, people_last, plural, together
from kluis.service.explain.cautions import harmless
from kluis.service.explain.explaining import Explained
from kluis.service.explain.losses import Simulated

LINES: Final = 12

_ALONE: Final = "Each of these opens it alone, so none of them may be stolen:"
_PAIRS: Final = "Each of these pairs opens it, so no pair may be stolen together:"
_MORE: Final = "Each of these lines opens it, so no line may be stolen together:"


def explained(what: Explained) -> Iterator[str]:
    """All of a keyring, line by line; indented lines belong to the one above."""
    yield f"{what.keyring} opens with: {policy.show(what.rule)}"
    yield ""
    yield from rule(what.found, what.people)
    yield ""
    yield from by_places(what.places, what.people)
    if notes := harmless(what.keyring, what.cold, what.people):
        yield ""
        yield from notes
    yield ""
    if not what.warnings:
        yield "No warnings."
        return
    yield f"{plural(len(what.warnings), 'warning')}:"
    for warning in what.warnings:
        yield f"  {warning.code}: {warning.seen}"
        yield f"    why:  {warning.means}"
        yield f"    next: {warning.next_step}"


def rule(found: Trust, people: People) -> Iterator[str]:
    """Who opens, who must not be robbed, what may be lost. ``people`` open by their shares."""
    sizes = {1: _ALONE, 2: _PAIRS}
    for heading in (_ALONE, _PAIRS, _MORE):
        sets = [names for names in found.quorums if sizes.get(len(names), _MORE) == heading]
        if sets:
            yield heading
            yield from _lines([together(names, people) for names in in_order(sets, people)])
    if not found.alone:
        yield "No single theft opens it."
    yield ""
    yield "It is locked for good only when all of one of these lines is lost:"
    cuts = sorted(found.cuts, key=lambda names: (len(names), names))
    yield from _lines(
        [joined([losing(n, people) for n in people_last(names, people)]) for names in cuts]
    )
    yield _may_be_lost(found, people)


def _lines(texts: Sequence[str]) -> Iterator[str]:
    yield from (f"  {text}" for text in texts[:LINES])
    if len(texts) > LINES:
        yield f"  and {len(texts) - LINES} more: --output json lists them all"


def _may_be_lost(found: Trust, people: People) -> str:
    if not found.may_be_lost:
        return f"Needed every time: {together(found.indispensable, people)}."
    if found.may_be_lost == 1:
        return "Any one anchor may be lost, whichever it is."
    return f"Any {found.may_be_lost} anchors may be lost at once, whichever they are."


def by_places(places: Places, people: People) -> Iterator[str]:
    """What fails together, and is stolen together."""
    if not places.domains:
        yield (
            'No anchor names its domain (like domain = "house"), so it is not known which of'
            " them fail together and are stolen together."
        )
        return
    yield "By domain, which fails as a whole and is stolen as a whole:"
    for domain in places.domains:
        yield f"  {domain.name} ({joined(domain.anchors)}): {_domain(domain)}"
    if places.alone:
        yield _alone(places.alone, people)
    yield f"{_places_lost(places.may_be_lost)} {_places_stolen(places.to_steal)}"


def _alone(names: Sequence[str], people: People) -> str:
    shares = any(people.get(name, (1, 1))[1] > 1 for name in names)
    if len(names) == 1:
        counts = "each share counts" if shares else "it counts"
        return f"{names[0]} has no domain: {counts} as a place apart."
    counts = "each of them, and each share, counts" if shares else "each of them counts"
    return f"{joined(names)} have no domain: {counts} as a place apart."


def _domain(domain: Domain) -> str:
    lost = "lost, it locks" if domain.loss_locks else "lost, it still opens"
    stolen = "stolen, it opens" if domain.theft_opens else "stolen, it is not enough"
    return f"{lost}; {stolen}."


def _places_lost(count: int) -> str:
    if not count:
        return "There is a place that may not be lost."
    if count == 1:
        return "Any one place may be lost."
    return f"Any {count} places may be lost at once."


def _places_stolen(count: int) -> str:
    if count == 1:
        return "A thief needs to empty only one."
    return f"A thief has to empty at least {count}."


def simulated(what: Simulated) -> Iterator[str]:
    """Whether a keyring opens after a loss, and by which way."""
    outcome, people = what.outcome, what.people
    if outcome.opens:
        ways = [together(names, people) for names in in_order(outcome.ways, people)]
        yield f"{what.keyring}: open {what.after}."
        yield from _one_or_lines("It opens with", "Each of these lines opens it:", ways)
        return
    back = [
        joined([_back(name, what) for name in people_last(names, people)])
        for names in outcome.lacking
    ]
    yield f"{what.keyring}: locked {what.after}."
    yield from _one_or_lines("It needs", "It needs one of these lines:", back)


def _one_or_lines(one: str, many: str, texts: Sequence[str]) -> Iterator[str]:
    if len(texts) == 1:
        yield f"{one} {texts[0]}."
        return
    yield many
    yield from _lines(texts)


def _back(name: str, what: Simulated) -> str:
    """What has to come back of an anchor: of people, as many shares as lack."""
    if name not in what.people:
        return name
    more = " more" if what.left[name] else ""
    count = what.people[name][0] - what.left[name]
    return f"{count}{more} share{'s' * (count > 1)} of {name}"

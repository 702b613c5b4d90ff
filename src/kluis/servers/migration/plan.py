"""Where a migration stands, and what follows: decided from what is seen and what is on record.

A node has *returned* when it was away, or sealed, after the server had moved, and works again.
When all of them have, the migration is proven; until then there is a way back at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from kluis.keyring.migrations import Migration, Progress
from kluis.servers.migration.standing import Seen, Stand, stands


class Place(StrEnum):
    """Where the whole stands. The words are a contract: they are in the JSON output."""

    RESTART = "restart"  # a person restarts nodes with the stanzas to migrate
    CARRY = "carry"  # kluis gives shares
    SETTLE = "settle"  # the server does the rest
    LAST = "last"  # a person makes the active node step down
    PROVE = "prove"  # a person restarts nodes with the new stanza
    DOUBT = "doubt"  # all came back, and something is not proven yet
    DONE = "done"
    RESTORE = "restore"  # a person restarts nodes with the stanza from before
    GONE_BACK = "gone-back"
    STRAY = "stray"  # a node has another seal than either


ENDED = frozenset({Place.DONE, Place.GONE_BACK})


class Push(NamedTuple):
    """Shares for one node, with or without ``migrate``."""

    address: str
    migrate: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows: shares that kluis gives now, or nodes that a person has to see to."""

    place: Place
    nodes: tuple[str, ...] = ()
    push: Push | None = None


def observe(one: Migration, nodes: Sequence[Seen], now: str) -> Migration:
    """What is on record after a look at all nodes."""
    found = stands(one, nodes)
    doubtful = one.same and one.progress.moved and one.progress.sending
    if doubtful and Stand.WANTS in found.values():  # it had not moved after all
        one = replace(one, progress=Progress(sending=one.progress.sending))
    if not one.progress.moved:
        one = replace(one, progress=_underway(_unsure(one.progress, nodes, found), found))
        found = stands(one, nodes)
        if not _has_moved(nodes, found):
            return one
        one = replace(one, progress=_arrived(one.progress, nodes, now))
        if one.restore:  # it had moved after all
            return turned(one, nodes, now)
        found = stands(one, nodes)
    return replace(one, progress=_returning(one.progress, nodes, found))


def _unsure(progress: Progress, nodes: Iterable[Seen], found: Mapping[str, Stand]) -> Progress:
    """A node that may have got its shares and may not: a restart of it can tell, so note one."""
    for seen in nodes:
        if found[seen.address] is Stand.UNCLEAR and seen.active_time:
            if progress.active_time in ("", seen.active_time):
                return replace(progress, active_time=seen.active_time)
            return replace(progress, away=_sorted({*progress.away, seen.address}))
    return progress


def _underway(progress: Progress, found: Mapping[str, Stand]) -> Progress:
    """Whoever restarts needs its shares anew, but for a single server, which migrates at once."""
    gone = {address for address, at in found.items() if at in (Stand.AWAY, Stand.OLD_SEALED)}
    here = {address for address, at in found.items() if at is Stand.OLD} - {progress.sending}
    anew = {address for address, at in found.items() if at is Stand.WANTS}
    lost = anew | (gone if len(found) > 1 else set())
    return replace(
        progress,
        carried=_sorted(set(progress.carried) - lost),
        away=_sorted((set(progress.away) | gone) - here - anew),
    )


def _has_moved(nodes: Iterable[Seen], found: Mapping[str, Stand]) -> bool:
    return any(
        found[seen.address] is Stand.SEALED or (seen.active and found[seen.address] is Stand.MOVED)
        for seen in nodes
    )


def _arrived(progress: Progress, nodes: Sequence[Seen], now: str) -> Progress:
    """``sending`` stays where nothing but a sealed node shows it: that may yet turn out wrong."""
    return replace(
        progress,
        moved=now,
        nodes=_sorted(seen.address for seen in nodes),
        active_time=_active_time(nodes),
        away=_sorted(set(progress.away) - set(progress.carried)),
    )


def _active_time(nodes: Iterable[Seen]) -> str:
    return next((seen.active_time for seen in nodes if seen.active), "")


def _returning(progress: Progress, nodes: Sequence[Seen], found: Mapping[str, Stand]) -> Progress:
    away, returned = set(progress.away), set(progress.returned)
    for seen in nodes:
        match found[seen.address]:
            case Stand.AWAY | Stand.SEALED:
                away.add(seen.address)
                returned.discard(seen.address)
            case Stand.MOVED if _came_back(progress, seen, away):
                returned.add(seen.address)
            case _:
                pass
    return replace(progress, away=_sorted(away), returned=_sorted(returned))


def _came_back(progress: Progress, seen: Seen, away: set[str]) -> bool:
    """Whether a node was restarted since: seen to be away, at a new address, or active anew."""
    if seen.address in away or seen.address not in progress.nodes:
        return True
    known = bool(progress.active_time and seen.active_time)
    return len(progress.nodes) == 1 and known and seen.active_time != progress.active_time


def sent(one: Migration, address: str) -> Migration:
    """That a node is being given shares: on record before the last of them is sent."""
    return replace(one, progress=replace(one.progress, sending=address))


def taken(one: Migration, address: str) -> Migration:
    """That a node took its shares."""
    progress = one.progress
    carried = _sorted({*progress.carried, address})
    return replace(one, progress=replace(progress, sending="", carried=carried))


def decide(one: Migration, nodes: Sequence[Seen], *, restarted: bool = False) -> Decision:
    """What follows. What is proven is not looked at again.

    ``restarted`` is a person's word, where kluis did not see the restarts itself.
    """
    if one.progress.proven:
        return Decision(Place.GONE_BACK if one.back else Place.DONE)
    found = stands(one, nodes)
    stray = _at(found, Stand.FOREIGN, Stand.AGAINST)
    if stray and not one.restore:
        return Decision(Place.STRAY, stray)
    if push := _push(one, found):
        return Decision(Place.CARRY, (push.address,), push)
    if one.restore:
        return _restore(one, nodes, found, restarted=restarted)
    if one.progress.moved:
        return _after_move(nodes, found, restarted=restarted)
    return _before_move(nodes, found)


def _push(one: Migration, found: Mapping[str, Stand]) -> Push | None:
    """Shares for the next node that wants some."""
    if one.restore:
        sealed = _at(found, Stand.OLD_SEALED) if one.source == "shamir" else ()
    elif wants := _at(found, Stand.WANTS):
        return Push(wants[0], migrate=True)
    else:
        sealed = _at(found, Stand.SEALED) if one.target == "shamir" else ()
    return Push(sealed[0], migrate=False) if sealed else None


def _before_move(nodes: Sequence[Seen], found: Mapping[str, Stand]) -> Decision:
    """The active node comes last.

    Its configuration stays as it is until another one took over: with nobody to take over, it has
    to come back as it was.
    """
    left = tuple(address for address, at in found.items() if at is not Stand.CARRIED)
    if not left:
        return Decision(Place.SETTLE)
    active = [seen.address for seen in nodes if seen.active and seen.address in left]
    standbys = tuple(address for address in left if address not in active)
    if len(found) > 1 and len(left) == 1 and found[left[0]] is Stand.OLD:
        return Decision(Place.LAST if active else Place.SETTLE, left)
    return Decision(Place.RESTART, standbys or left)


def _after_move(nodes: Sequence[Seen], found: Mapping[str, Stand], *, restarted: bool) -> Decision:
    back = (Stand.RETURNED, Stand.MOVED) if restarted else (Stand.RETURNED,)
    left = tuple(address for address, at in found.items() if at not in back)
    if left:
        return Decision(Place.PROVE, left)
    return Decision(Place.DOUBT if any(seen.active for seen in nodes) else Place.SETTLE)


def _restore(
    one: Migration, nodes: Sequence[Seen], found: Mapping[str, Stand], *, restarted: bool
) -> Decision:
    up = {n.address for n in nodes if not n.sealed and not n.migration and n.seal == one.source}
    left = tuple(
        address
        for address, at in found.items()
        if at is not Stand.OLD and not (restarted and address in up)
    )
    return Decision(Place.RESTORE, left) if left else Decision(Place.GONE_BACK)


def turned(one: Migration, nodes: Sequence[Seen], now: str, unsealed: str = "") -> Migration:
    """The way back. Where it had moved it is a migration of its own, to the seal it came from.

    ``unsealed`` is when the facade had unsealed the client last: a re-point is proven by it.
    """
    if not one.progress.moved:
        return replace(one, restore=True)
    progress = _arrived(Progress(unsealed=unsealed), nodes, now) if one.repoint else Progress()
    return replace(
        one,
        source=one.target,
        target=one.source,
        began=now,
        back=True,
        restore=False,
        progress=progress,
    )


def anew(one: Migration, nodes: Sequence[Seen], now: str, unsealed: str) -> Migration:
    """A re-point taken back that came back on kluis: all have to be restarted once more."""
    return replace(one, progress=_arrived(Progress(unsealed=unsealed), nodes, now))


def _at(found: Mapping[str, Stand], *wanted: Stand) -> tuple[str, ...]:
    return tuple(address for address, at in found.items() if at in wanted)


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(addresses))

"""Where one node stands on its way to another seal, by what it shows.

What stock servers show (measured on OpenBao 2.7.2):

- Started with a seal to migrate to, a server is sealed and says ``migration``; its ``type`` is the
  new one already. It takes the shares (from Shamir) or the recovery keys (from an auto seal), and
  only those that come with ``migrate``.
- A single server migrates when it has enough. A standby of a cluster then waits, unsealed, until
  a node that has its shares is active: that one migrates for all. Between two types of seals it
  answers 500 to ``sys/seal-status`` meanwhile.
- After that ``migration`` is false. While the configuration still has the disabled stanza, an
  auto seal does not unseal at a restart: so one that came back by itself has it no more, and the
  old seal is out of its reach.
- Between two seals of one type (``transit`` to ``transit``) the type tells nothing: then counts
  who was given shares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kluis.keyring.migrations import Migration


class Presence(StrEnum):
    """Whether a node tells of its seal."""

    THERE = "there"
    AWAY = "away"  # nobody listens
    UNCLEAR = "unclear"  # it listens, and hangs or can't tell: it may be between two seals


@dataclass(frozen=True, slots=True)
class Seen:
    """One node as it was seen; without ``presence`` THERE the rest says nothing."""

    address: str
    presence: Presence
    seal: str = ""
    sealed: bool = True
    migration: bool = False
    active: bool = False
    active_time: str = ""


class Stand(StrEnum):
    """Where one node stands. The words are a contract: they are in the JSON output."""

    AWAY = "away"
    UNCLEAR = "unclear"
    OLD = "old"  # works with the seal that it had
    OLD_SEALED = "old-sealed"
    WANTS = "wants-shares"  # restarted to migrate
    CARRIED = "carried"  # has its shares, and waits for the active node
    MOVED = "moved"  # works with the new seal, and was not restarted since
    SEALED = "sealed"  # moved, and sealed
    RETURNED = "returned"
    AGAINST = "against"  # restarted to migrate the other way
    FOREIGN = "foreign"  # has a seal that is neither of the two


def stand(one: Migration, seen: Seen) -> Stand:
    """Where a node stands."""
    if seen.presence is Presence.AWAY:
        return Stand.AWAY
    if seen.presence is Presence.UNCLEAR:
        progress = one.progress
        given = seen.address in (*progress.carried, progress.sending)
        return Stand.CARRIED if given and not progress.moved else Stand.UNCLEAR
    if seen.seal not in (one.source, one.target):
        return Stand.FOREIGN
    return _in_migration(one, seen) if seen.migration else _settled(one, seen)


def _in_migration(one: Migration, seen: Seen) -> Stand:
    if seen.seal != one.target:
        return Stand.AGAINST
    if not seen.sealed:
        return Stand.CARRIED
    surely = one.progress.moved and not one.progress.sending
    return Stand.AGAINST if one.same and surely else Stand.WANTS


def _settled(one: Migration, seen: Seen) -> Stand:
    """Where a node stands that is not in migration."""
    if not _moved(one, seen):
        if _unsure(one, seen):
            return Stand.UNCLEAR
        return Stand.OLD_SEALED if seen.sealed else Stand.OLD
    if seen.sealed:
        return Stand.SEALED
    return Stand.RETURNED if seen.address in one.progress.returned else Stand.MOVED


def _moved(one: Migration, seen: Seen) -> bool:
    """Whether a node that is not in migration has the new seal, or will when it is restarted."""
    progress = one.progress
    if not one.same:
        return seen.seal == one.target
    given = seen.address in progress.carried
    return bool(progress.moved) or given or (seen.sealed and seen.address == progress.sending)


def _unsure(one: Migration, seen: Seen) -> bool:
    """Whether kluis ended while it gave shares, and nothing shows if the last one arrived."""
    interrupted = one.same and seen.address == one.progress.sending
    return interrupted and not seen.sealed and seen.address not in one.progress.away


def stands(one: Migration, nodes: Iterable[Seen]) -> dict[str, Stand]:
    """Where each node stands, by its address."""
    return {seen.address: stand(one, seen) for seen in nodes}

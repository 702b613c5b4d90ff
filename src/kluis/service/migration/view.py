"""A migration as a person, and a program, is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from kluis.keyring.migrations import Migration
from kluis.keyring.strict import JSON
from kluis.servers.migration import standing, words
from kluis.servers.migration.plan import ENDED, Decision
from kluis.servers.migration.standing import Seen, Stand
from kluis.service.house import House


@dataclass(frozen=True, slots=True)
class View:
    """A migration as it was seen a moment ago, and what follows. ``doubt`` is in words."""

    one: Migration
    nodes: Sequence[Seen]
    decision: Decision
    doubt: str = ""


def shown(house: House, view: View) -> dict[str, JSON]:
    """The answer of every operation on a migration; a contract."""
    one, place = view.one, view.decision.place
    found = standing.stands(one, view.nodes)
    ended = place in ENDED
    nodes: dict[str, JSON] = {
        seen.address: {
            "stand": found[seen.address].value,
            "seal": seen.seal or None,
            "active": seen.active,
        }
        for seen in view.nodes
    }
    return {
        "server": one.server,
        "place": place.value,
        "ended": ended,
        **_as_begun(one),
        "moved": one.progress.moved or None,
        "proven": one.progress.proven or None,
        "nodes": nodes,
        "next": None if ended else _next(view, found),
        **(_after(house, one) if ended and not one.restore else {"notes": [], "rename": None}),
        "state": _state(view, found),
    }


def _as_begun(one: Migration) -> dict[str, JSON]:
    return {
        "from": one.source,
        "to": one.to,
        "seal": one.target,
        "way": "re-point" if one.repoint else "migrate",
        "back": one.back or one.restore,
        "key": one.key or None,
        "client": one.client or None,
        "shares": one.shares or None,
        "began": one.began,
        "snapshot": one.snapshot or None,
        "folder": one.folder,
    }


def _next(view: View, found: dict[str, Stand]) -> JSON:
    said = words.following(view.one, view.decision, found)
    folder = PurePosixPath(view.one.folder)
    return {
        "what": view.doubt or said.what or f"run kluis server migrate {view.one.server}",
        "file": str(folder / said.file) if said.file else None,
        "otherwise": str(folder / said.otherwise) if said.otherwise else None,
        "nodes": list(said.nodes),
        "hint": said.hint or None,
    }


def _after(house: House, one: Migration) -> dict[str, JSON]:
    """What a person should see to, and what kluis.toml is to say, when it is over."""
    server = house.blueprint.servers.get(one.server)
    unseal = recovery = ""
    if server is not None:
        unseal, recovery = str(server.unseal or ""), str(server.recovery or "")
    names = words.misnamed(one, unseal, recovery)
    return {
        "notes": [*words.notes(one, unseal, recovery)],
        "rename": None if names is None else {"old": names[0], "new": names[1]},
    }


def _state(view: View, found: dict[str, Stand]) -> str:
    """Changes whenever there is something new to tell."""
    nodes = (f"{address}={at}" for address, at in sorted(found.items()))
    return " ".join(filter(None, [view.decision.place, *nodes, view.doubt]))

"""Declared servers as a person deals with them: listed, held and let go, and their shares kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from kluis.errors import DocumentError, StoreError, UsageError
from kluis.keyring.holds import Held
from kluis.keyring.strict import JSON
from kluis.servers import glancing
from kluis.servers.declared import Server
from kluis.servers.watch.states import Condition, Hold, NodeView, ServerView
from kluis.service.house import House
from kluis.service.journal import recorded
from kluis.service.migration.record import on_record
from kluis.service.operations import Args, text

MAX_HOLD_S = 366 * 86_400

WORST_FIRST = (
    Condition.WRONG,
    Condition.UNINITIALISED,
    Condition.SEALED,
    Condition.HELD,
    Condition.UNSEALING,
    Condition.HUNG,
    Condition.UNREACHABLE,
    Condition.UNKNOWN,
)


def hold_of(house: House, name: str, now_s: float) -> Hold | None:
    """Whether a person holds a server, at ``now_s`` (Unix time). Quick: it may be asked often.

    While the record can't be read every server of its keyring is held: what a person let be must
    not be unsealed because of a damaged file. ``seen`` then says so.
    """
    for keyring in _recorded_at(house, name):
        try:
            held = house.blueprint.stores[keyring].load_holds(keyring).servers.get(name)
        except (StoreError, DocumentError) as error:
            return Hold(0.0, seen=error.seen)
        if held is not None and not held.over(now_s):
            return _hold(held)
    return _moved(house, name)


def _moved(house: House, name: str) -> Hold | None:
    """One that is on its way to another seal is let be: its migration gives it its shares."""
    try:
        found = on_record(house, name)
    except (StoreError, DocumentError) as error:
        return Hold(0.0, seen=error.seen)
    if found is None or found[1].progress.proven:
        return None
    return Hold(0.0, seen=f"it is on its way to {found[1].to}: kluis server migrate {name}")


def _hold(held: Held) -> Hold:
    return Hold(float(held.since_s), None if held.until_s is None else float(held.until_s))


def _recorded_at(house: House, name: str) -> tuple[str, ...]:
    """Where the record of a server's hold may lie: beside its shares, else by the first keyring.

    It is looked for everywhere: a server is held still when its shares came, or moved, after that.
    """
    server, stores = house.blueprint.servers.get(name), house.blueprint.stores
    own = () if server is None or server.unseal is None else (server.unseal.keyring,)
    return tuple(one for one in dict.fromkeys((*own, *stores)) if one in stores)


async def server_hold(house: House, args: Args) -> dict[str, JSON]:
    """Let a server stay as it is, for ``for_s`` seconds, or until it is released."""
    name = declared(house, text(args, "server")).name
    now_s = int(time.time())
    length_s = _length_s(args)
    until_s = None if length_s is None else now_s + length_s
    async with house.changing:
        keyring = next(iter(_recorded_at(house, name)), None)
        if keyring is None:
            raise UsageError(
                "there is no keyring",
                "the record of what is held lies beside one",
                "declare one in kluis.toml",
            )
        store = house.blueprint.stores[keyring]
        holds = store.load_holds(keyring).held(name, now_s, until_s)
        with recorded(house, "server-hold", server=name, what=_until(until_s)):
            store.save_holds(keyring, holds)
    _wake(house, name)
    return {"server": name, "hold": shown_hold(_hold(holds.servers[name]))}


async def server_release(house: House, args: Args) -> dict[str, JSON]:
    """Let a held server go, also one that a person sealed by hand: it is unsealed again."""
    name = declared(house, text(args, "server")).name
    by_hand = house.watcher is not None and _is_held(house.watcher.views().get(name))
    async with house.changing:
        records = {
            keyring: house.blueprint.stores[keyring].load_holds(keyring)
            for keyring in _recorded_at(house, name)
        }
        held_in = [keyring for keyring, holds in records.items() if name in holds.servers]
        for keyring in held_in:
            with recorded(house, "server-release", server=name):
                store = house.blueprint.stores[keyring]
                store.save_holds(keyring, records[keyring].released(name))
    _wake(house, name)
    return {"server": name, "released": bool(held_in) or by_hand}


def _is_held(view: ServerView | None) -> bool:
    nodes = () if view is None else view.nodes.values()
    return any(node.condition is Condition.HELD for node in nodes)


async def server_list(house: House, args: Args) -> dict[str, JSON]:
    """Every server, or the one that ``server`` names: its nodes, what is wrong, who holds it."""
    only = args.get("server")
    servers = house.blueprint.servers
    names = sorted(servers) if only is None else [declared(house, text(args, "server")).name]
    if house.watcher is not None:
        known = house.watcher.views()
        views = [known.get(name, ServerView(name)) for name in names]
    else:
        now_s = time.time()
        holds = {name: hold_of(house, name, now_s) for name in names}
        views = list(await glancing.views([servers[n] for n in names], holds, now_s))
    found: dict[str, JSON] = {view.name: shown(house, view) for view in views}
    return {"servers": found, "watched": house.watcher is not None}


def watched(house: House) -> dict[str, JSON]:
    """The servers that this process watches, as they stand in ``kluis status``."""
    views = {} if house.watcher is None else house.watcher.views()
    return {name: shown(house, views[name]) for name in sorted(views)}


def shown(house: House, view: ServerView) -> dict[str, JSON]:
    """A server and its nodes as they stand in JSON."""
    hold = view.hold or hold_of(house, view.name, time.time())
    return {
        "condition": condition(view.nodes.values()).value,
        "down_since": moment(view.down_since_s),
        "hold": None if hold is None else shown_hold(hold),
        "seen": view.seen,
        "means": view.means,
        "next": view.next_step,
        "nodes": {address: _shown_node(node) for address, node in sorted(view.nodes.items())},
        **_as_declared(house.blueprint.servers.get(view.name)),
    }


def condition(nodes: Iterable[NodeView]) -> Condition:
    """The worst that a node of a server is in."""
    found = {node.condition for node in nodes} or {Condition.UNKNOWN}
    return next((worst for worst in WORST_FIRST if worst in found), Condition.UNSEALED)


def _shown_node(node: NodeView) -> dict[str, JSON]:
    return {
        "condition": node.condition.value,
        "since": moment(node.since_s),
        "active": node.active,
        "alarm": None if node.alarm is None else node.alarm.value,
        "seen": node.seen,
        "means": node.means,
        "next": node.next_step,
        "version": node.version,
        "certificate_ends": moment(node.certificate_ends_s),
    }


def _as_declared(server: Server | None) -> dict[str, JSON]:
    if server is None:
        return {}
    return {
        "unseal": None if server.unseal is None else str(server.unseal),
        "recovery": None if server.recovery is None else str(server.recovery),
        "pin": server.tls.pin,
        "user": server.tls.user,
        "cluster_id": server.identity.cluster_id,
        "threshold": server.identity.threshold,
        "shares": server.identity.shares,
        "on_seal": server.on_seal,
        "wake": list(server.wake),
    }


def shown_hold(hold: Hold) -> dict[str, JSON]:
    """A hold as it stands in JSON."""
    since = None if hold.seen else moment(hold.since_s)
    return {"since": since, "until": moment(hold.until_s), "seen": hold.seen}


def moment(time_s: float | None) -> str | None:
    """A Unix time in RFC 3339, UTC."""
    if time_s is None:
        return None
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _until(until_s: int | None) -> str:
    return "until it is released" if until_s is None else f"until {moment(until_s)}"


def _length_s(args: Mapping[str, JSON]) -> int | None:
    value = args.get("for_s")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_HOLD_S:
        raise UsageError(
            "a hold can't be that long",
            "it lasts from a second to 366 days, or until it is released",
            "give a length like 90s, 30m, 2h or 1d, or none",
        )
    return value


def declared(house: House, name: str) -> Server:
    """A server of kluis.toml. Raises UsageError."""
    server = house.blueprint.servers.get(name)
    if server is None:
        known = ", ".join(sorted(house.blueprint.servers)) or "none"
        raise UsageError(
            f"there is no server {name[:64]}",
            f"kluis.toml declares: {known}",
            f"kluis server add {name[:64]} --address URL declares one; or correct the name",
        )
    return server


def _wake(house: House, name: str) -> None:
    if house.watcher is not None:
        house.watcher.wake(name)

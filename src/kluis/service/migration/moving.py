"""Servers moved to another seal and back: looked at, given shares, proven, turned round.

A call looks at the server, gives shares where they are wanted, and says what a person does next;
so a migration that was interrupted anywhere goes on by calling again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kluis.engine.clock import now
from kluis.errors import ServerAnswered, ServerHung, ServerUnreachable, UsageError
from kluis.keyring.custody import Purpose
from kluis.keyring.migrations import Migration
from kluis.keyring.strict import JSON
from kluis.servers.migration import plan
from kluis.servers.migration.driver import Nodes, seen
from kluis.servers.migration.plan import Decision, Place, Push
from kluis.servers.migration.standing import Seen
from kluis.service import custody
from kluis.service.house import House
from kluis.service.journal import recorded
from kluis.service.migration.proof import Evidence, last_unseal, unproven
from kluis.service.migration.record import (
    EVENT,
    forget,
    key_path,
    on_record,
    required,
    save,
    shares_of,
)
from kluis.service.migration.targets import opened
from kluis.service.migration.view import View, shown
from kluis.service.operations import Args, text
from kluis.service.servers import declared

POLL_S: Final = 0.1
SETTLE_S: Final = 20.0  # an election, and a KMS that retries
MAX_WAIT_S: Final = 60
_FAULTS: Final = 500


async def server_migration(house: House, args: Args) -> dict[str, JSON]:
    """Where a server's migration stands. Nothing is changed, and no share is given."""
    server = declared(house, text(args, "server"))
    found = on_record(house, server.name)
    if found is None:
        return {"server": server.name, "place": None, "ended": True}
    _, one = found
    if one.progress.proven:
        return shown(house, View(one, (), plan.decide(one, ())))
    async with Nodes(server) as nodes:
        now_seen = seen(await nodes.look())
    after = plan.observe(one, now_seen, now())
    if after.progress.moved != one.progress.moved:  # to be put on record before anything follows
        return shown(house, View(after, now_seen, Decision(Place.SETTLE)))
    return shown(house, View(after, now_seen, plan.decide(after, now_seen)))


async def server_migrate(house: House, args: Args) -> dict[str, JSON]:
    """Go on: look, give shares, prove; for ``wait_s`` seconds, or until there is news.

    ``known`` is what the caller was told last, as ``state`` of the answer.
    """
    name, evidence, wait_s = text(args, "server"), _evidence(args), _wait_s(args)
    _, one = required(house, name)
    if one.progress.proven:
        return shown(house, View(one, (), plan.decide(one, ())))
    cluster_id = ""
    if path := shares_of(one):
        await opened(house, path.keyring)
        cluster_id = custody.kept(house, path).cluster_id
    async with Nodes(declared(house, name), cluster_id) as nodes:
        return await _go_on(house, name, nodes, evidence, (wait_s, args.get("known")))


async def _go_on(
    house: House, name: str, nodes: Nodes, evidence: Evidence, wait: tuple[float, JSON]
) -> dict[str, JSON]:
    """Look again and again while there is something to wait for."""
    clock = asyncio.get_running_loop().time
    until, settled = clock() + wait[0], clock()
    while True:
        view = await _look(house, name, nodes, evidence)
        if view.decision.push is not None:
            await _push(house, name, nodes, view.decision.push, patient=wait[0] > 0)
            settled = clock() + SETTLE_S
            continue
        told = shown(house, view)
        settling = view.decision.place is Place.SETTLE and clock() < settled
        waiting = told["state"] == wait[1] and clock() < until
        if told["ended"] or not (settling or waiting):
            return told
        await asyncio.sleep(POLL_S)


async def _look(house: House, name: str, nodes: Nodes, evidence: Evidence) -> View:
    """Look at all nodes, and put on record what that shows; the end of it, too."""
    now_seen = seen(await nodes.look())
    keyring, one = await _noted(house, name, now_seen)
    decision, doubt = plan.decide(one, now_seen, restarted=evidence.restarted), ""
    if decision.place is Place.DOUBT:
        doubt = await unproven(house, one, now_seen, nodes, evidence)
        if not doubt:
            proven = await _finish(house, keyring, one, nodes.cluster_id)
            if proven is None:
                return await _look(house, name, nodes, evidence)
            one = proven
        elif one.back and one.repoint and not evidence.restarted:
            one, now_seen = await _anew(house, one, nodes)
        decision = plan.decide(one, now_seen, restarted=evidence.restarted)
    elif decision.place is Place.GONE_BACK:
        await forget(house, keyring, one)
    return View(one, now_seen, decision, doubt)


async def _noted(house: House, name: str, now_seen: Sequence[Seen]) -> tuple[str, Migration]:
    async with house.changing:
        keyring, before = required(house, name)
        one = plan.observe(before, now_seen, now())
        if one != before:
            save(house, keyring, one)
    if one.progress.moved and not before.progress.moved and one.to == "facade" and not one.back:
        mark = await last_unseal(house, key_path(one.key), one.client)
        async with house.changing:
            keyring, one = required(house, name)
            one = replace(one, progress=replace(one.progress, unsealed=mark))
            save(house, keyring, one)
    return keyring, one


async def _anew(house: House, one: Migration, nodes: Nodes) -> tuple[Migration, list[Seen]]:
    """Where kluis unsealed it on its way back, the next restart has to prove it."""
    mark = await last_unseal(house, key_path(one.key), one.client)  # before the look it goes with
    now_seen = seen(await nodes.look())
    async with house.changing:
        keyring, fresh = required(house, one.server)
        if fresh == one and mark != one.progress.unsealed:
            fresh = plan.anew(one, now_seen, now(), mark)
            save(house, keyring, fresh)
    return fresh, now_seen


async def _push(house: House, name: str, nodes: Nodes, push: Push, *, patient: bool) -> None:
    """Give a node its shares, on record before and after. A node that just went away is let be."""
    one = await _marked(house, name, push, done=False)
    path = shares_of(one)
    if path is None:
        return
    try:
        await nodes.give(push.address, custody.kept(house, path), migrate=push.migrate)
    except (ServerUnreachable, ServerHung):
        return
    except ServerAnswered as error:
        if not patient or error.status < _FAULTS:
            raise
        await asyncio.sleep(POLL_S)
        return
    await _marked(house, name, push, done=True)


async def _marked(house: House, name: str, push: Push, *, done: bool) -> Migration:
    async with house.changing:
        keyring, one = required(house, name)
        if push.migrate:
            one = plan.taken(one, push.address) if done else plan.sent(one, push.address)
            save(house, keyring, one)
    return one


async def _finish(house: House, keyring: str, one: Migration, cluster_id: str) -> Migration | None:
    """It is proven: what is kept changes its purpose, and the record its end.

    The shares have just shown whose they are, so that is noted, too. None where another call has
    changed the record since: what was proven may not be what it says now.
    """
    purpose: Purpose = "unseal" if one.target == "shamir" else "recovery"
    path = shares_of(one)
    async with house.changing:
        if on_record(house, one.server) != (keyring, one):
            return None
        if path is not None:
            kept = custody.kept(house, path)
            proven = replace(kept, purpose=purpose, cluster_id=kept.cluster_id or cluster_id)
            if proven != kept:
                custody.keep(house, path, proven, "server-migrated")
        one = replace(one, progress=replace(one.progress, proven=now()))
        with recorded(house, EVENT, keyring=keyring, server=one.server, what="proven"):
            save(house, keyring, one)
    return one


async def server_migrate_back(house: House, args: Args) -> dict[str, JSON]:
    """Turn round. What had not moved yet only gets its old stanza back."""
    name = text(args, "server")
    server = declared(house, name)
    _, one = required(house, name)
    _refuse_to_turn(one)
    mark = await last_unseal(house, key_path(one.key), one.client) if one.repoint else ""
    async with Nodes(server) as nodes:
        now_seen = seen(await nodes.look())
    await _noted(house, name, now_seen)
    async with house.changing:
        keyring, one = required(house, name)
        _refuse_to_turn(one)
        with recorded(house, EVENT, keyring=keyring, server=name, what="back"):
            save(house, keyring, plan.turned(one, now_seen, now(), mark))
    return {"server": name, "back": True}


def _refuse_to_turn(one: Migration) -> None:
    if one.progress.proven:
        raise UsageError(
            f"{one.server} has moved, and that is proven",
            "its old seal is out of its configuration: to go there again is a migration of its own",
            "kluis server migrate with --to shamir, or --to other and --new-config",
        )
    if one.back or one.restore:
        raise UsageError(
            f"{one.server} is going back already",
            "it goes on by itself",
            f"kluis server migrate {one.server} says what comes next",
        )


def _evidence(args: Args) -> Evidence:
    token = args.get("token")
    return Evidence(token if isinstance(token, str) else "", args.get("restarted") is True)


def _wait_s(args: Args) -> float:
    value = args.get("wait_s")
    if isinstance(value, bool) or not isinstance(value, int):
        return 0.0
    return float(max(0, min(value, MAX_WAIT_S)))

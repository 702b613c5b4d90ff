"""``kluis server init`` as small operations: each does one step, and can be done again.

What is kept in the keyring says how far it came (``servers/ceremony/standing.py``), so a ceremony
that ended anywhere goes on by running the same command again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from kluis.errors import UsageError
from kluis.keyring.custody import Custody
from kluis.keyring.strict import JSON
from kluis.servers.ceremony import admitting, nodes, policies, settling
from kluis.servers.ceremony.standing import Stand
from kluis.servers.client import SealStatus
from kluis.servers.watch.states import Condition
from kluis.service.ceremony import making
from kluis.service.ceremony.standing import EVENT, Ceremony, at_work, begin, declared
from kluis.service.house import House
from kluis.service.journal import record
from kluis.service.operations import Args, text
from kluis.service.servers import hold_of


async def server_init(house: House, args: Args) -> dict[str, JSON]:
    """One step of making a server: the one that ``step`` names."""
    step = _STEPS.get(text(args, "step"))
    if step is None:
        raise UsageError(
            "there is no such step",
            "the service is of another version than the command",
            "restart the service after an upgrade",
        )
    server = await declared(house, text(args, "server"))
    async with at_work(house, server.name):
        return await step(await begin(house, server), args)


async def _look(at: Ceremony, args: Args) -> dict[str, JSON]:
    """Where it stands; nothing changes."""
    kept = at.kept
    if kept is None or at.to_be_made:
        count, enough = making.numbers(at, args)
    else:
        count, enough = len(kept.shares), kept.threshold
    return {
        "server": at.server.name,
        "address": at.seal.address,
        "seal": at.seal.status.seal_type,
        "stand": at.stand.value,
        "custody": str(at.path),
        "shares": count,
        "threshold": enough,
        "cluster_id": "" if kept is None else kept.cluster_id,
        "root_token": kept is not None and bool(kept.root_token),
    }


async def _unseal(at: Ceremony, _: Args) -> dict[str, JSON]:
    """Unseal the new server by its shares, wait until it works, and keep its cluster id.

    Once the ceremony is over nothing is done: then unsealing is the watch's.
    """
    kept = at.custody()
    if at.stand is Stand.DONE:
        return {"cluster_id": kept.cluster_id}
    async with at.client() as client:
        if kept.purpose == "unseal" and at.seal.status.sealed:
            await settling.unseal(client, kept.some(), lambda seen: _refuse_unfit(at, kept, seen))
        status = await settling.wait_active(client)
    nodes.refuse_other_cluster(at.server, status, kept.cluster_id)
    if status.cluster_id not in (kept.cluster_id, "?"):  # "?": no cluster has such an id
        await at.keep(replace(kept, cluster_id=status.cluster_id))
    if at.house.watcher is not None:
        at.house.watcher.wake(at.server.name)  # other nodes of its cluster can be unsealed now
    return {"cluster_id": status.cluster_id}


def _refuse_unfit(at: Ceremony, kept: Custody, status: SealStatus) -> None:
    name, address, watcher = at.server.name, at.seal.address, at.house.watcher
    view = None if watcher is None else watcher.views().get(name)
    node = None if view is None else view.nodes.get(address)
    by_hand = node is not None and node.condition is Condition.HELD
    held = by_hand or hold_of(at.house, name, time.time()) is not None
    admitting.refuse_unfit(at.server, address, kept, status, held=held)


async def _audit(at: Ceremony, args: Args) -> dict[str, JSON]:
    """The server's audit log, in a file of its machine."""
    async with at.client() as client:
        new = await settling.audit_file(client, at.root_token(), text(args, "file"))
    return {"new": new}


async def _admin(at: Ceremony, args: Args) -> dict[str, JSON]:
    """The administrators' policy, and a token with it if ``token`` is set.

    Once the ceremony is over, a policy that is there already gets no further token.
    """
    name, root = policies.checked_name(text(args, "policy")), at.root_token()
    made = ""
    async with at.client() as client:
        new = await settling.policy(client, root, name, policies.administrator())
        if args.get("token") is True and (new or at.stand is Stand.KEPT):
            made = await settling.token_for(client, root, name, "ttl", policies.ADMIN_TTL)
    return {"new": new, "token": made}


async def _transit_role(at: Ceremony, args: Args) -> dict[str, JSON]:
    """A Transit key for another server's seal, its policy, and a token with nothing else.

    Once the ceremony is over, a role that is there already gets no further token.
    """
    key, root = policies.checked_name(text(args, "role")), at.root_token()
    name = policies.checked_name(policies.transit_policy_name(key))
    made = ""
    async with at.client() as client:
        await settling.transit_key(client, root, key)
        new = await settling.policy(client, root, name, policies.transit_role(key))
        if new or at.stand is Stand.KEPT:
            made = await settling.token_for(client, root, name, "period", policies.TRANSIT_PERIOD)
    return {"new": new, "policy": name, "token": made}


async def _secrets(at: Ceremony, _: Args) -> dict[str, JSON]:
    """The shares and the root token, for a person who asked for them. On record."""
    kept, path = at.custody(), at.path
    record(at.house, EVENT, keyring=path.keyring, key=path.key, what="shown")
    shares: list[JSON] = [share.hex() for share in kept.shares]
    return {"shares": shares, "threshold": kept.threshold, "root_token": kept.root_token}


async def _finish(at: Ceremony, args: Args) -> dict[str, JSON]:
    """The end: the root token revoked and forgotten, if that is wanted."""
    kept = at.custody()
    revoked = args.get("revoke_root") is True and bool(kept.root_token)
    if revoked:
        async with at.client() as client:
            await settling.revoke(client, kept.root_token)
        kept = replace(kept, root_token="")
    if kept.step == "kept":
        kept = replace(kept, step="", node="", attempt="")
    if kept != at.kept:
        await at.keep(kept)
    return {"revoked": revoked, "root_token": bool(kept.root_token)}


Step = Callable[[Ceremony, Args], Awaitable[dict[str, JSON]]]
_STEPS: Final[Mapping[str, Step]] = {
    "look": _look,
    "intend": making.intend,
    "make": making.make,
    "unseal": _unseal,
    "audit": _audit,
    "admin": _admin,
    "transit-role": _transit_role,
    "secrets": _secrets,
    "finish": _finish,
}

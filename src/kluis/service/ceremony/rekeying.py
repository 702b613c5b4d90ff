"""``kluis server rekey``: new shares, which are in the keyring before they are valid.

While it is under way both sets are kept (step ``rekeying``). Ended anywhere, the next run finds out
which of them the server takes, finishes what was begun or cancels it, and then goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from kluis.errors import KluisError, ServerAnswered, ServerError, UsageError, WrongServer
from kluis.keyring.custody import Custody, Shares
from kluis.keyring.strict import JSON
from kluis.servers.ceremony import nodes, rekeying, roads, roots, standing
from kluis.servers.ceremony.roads import Road
from kluis.servers.client import ServerClient
from kluis.servers.declared import KeyPath, Server
from kluis.service.ceremony.standing import at_work, declared, keep, kept_if_any, number
from kluis.service.house import House
from kluis.service.operations import Args, text

EVENT: Final = "server-rekey"


@dataclass(frozen=True)
class Holding:
    """An unsealed server, and what is kept for it."""

    house: House
    server: Server
    path: KeyPath
    kept: Custody
    address: str

    def client(self) -> ServerClient:
        """The node to ask."""
        return ServerClient(self.address, tls=self.server.tls, quiet=True)

    async def write(self, kept: Custody, event: str) -> Holding:
        """The same with other things kept. Raises Locked, StoreError, AuditError."""
        await keep(self.house, self.path, kept, event)
        return replace(self, kept=kept)


async def holding(house: House, server: Server, steps: Sequence[str]) -> Holding:
    """An unsealed server whose shares are kept, at one of these steps. Raises KluisError."""
    found = await nodes.survey(server)
    seal = standing.seal_of(server, found)
    kept = await kept_if_any(house, seal.path)
    if kept is None or not kept.shares:
        raise UsageError(
            f"{seal.path} keeps no shares of {server.name}",
            "without them nothing can be made of it",
            f"kluis key import {seal.path} --shares -",
        )
    if kept.step not in ("", *steps):
        command = {"kept": "init", "rekeying": "rekey", "rotating": "rotate"}.get(kept.step, "init")
        raise UsageError(
            f"a ceremony of {server.name} is not over yet",
            f"it stands at {kept.step}",
            f"kluis server {command} {server.name} goes on with it",
        )
    address, _ = nodes.active(server, found, kept.cluster_id)
    return Holding(house, server, seal.path, kept, address)


async def server_rekey(house: House, args: Args) -> dict[str, JSON]:
    """Other shares for a server; with ``look``, only say where it stands."""
    server = await declared(house, text(args, "server"))
    async with at_work(house, server.name):
        at = await holding(house, server, ("rekeying",))
        wanted = _wanted(at, args)
        if args.get("look") is True:
            return _shown(at, wanted, (), at.kept.step == "rekeying")
        async with at.client() as client:
            road = await roads.find(
                client, roads.REKEY[at.kept.purpose], _token(at, text(args, "token"))
            )
            return await _rekey(client, road, at, wanted, args.get("cancel_other") is True)


def _wanted(at: Holding, args: Args) -> tuple[int, int]:
    last = at.kept.next or at.kept.present
    present = len(last.shares), last.threshold
    shares, threshold = number(args, "shares"), number(args, "threshold")
    return standing.shares_wanted(at.server, shares, threshold, present)


def _token(at: Holding, given: str) -> str:
    """The token that was given; else the root token of the init, while it is kept."""
    return given or at.kept.root_token


def _shown(
    at: Holding, numbers: tuple[int, int], steps: Sequence[str], under_way: bool
) -> dict[str, JSON]:
    said = at.server.identity
    count, enough = numbers
    return {
        "server": at.server.name,
        "custody": str(at.path),
        "shares": count,
        "threshold": enough,
        "steps": list(steps),
        "under_way": under_way,
        "declared_otherwise": (said.shares or count, said.threshold or enough) != numbers,
    }


async def _rekey(
    client: ServerClient, road: Road, at: Holding, wanted: tuple[int, int], cancel_other: bool
) -> dict[str, JSON]:
    steps: list[str] = []
    if at.kept.step == "rekeying":
        at, word = await _settle(client, road, at, cancel_other)
        steps.append(word)
        if word == FINISHED and (len(at.kept.shares), at.kept.threshold) == wanted:
            return _shown(at, wanted, steps, False)
    await _refuse_other(client, road, cancel_other)
    at = await _begin(client, road, at, wanted)
    steps.append(f"begun: {wanted[0]} shares, {wanted[1]} needed")
    at = await _authorise(client, road, at)
    steps.append(f"the new shares are kept in {at.path}, beside the old ones")
    await rekeying.verify(client, road, _next(at))
    steps.append("the server took the new shares; the old ones are void")
    at = await _adopt(at)
    steps.append(f"{at.path} keeps the new shares only")
    return _shown(at, wanted, steps, False)


FINISHED: Final = "the rekey that was begun before is finished"


async def _settle(
    client: ServerClient, road: Road, at: Holding, cancel_other: bool
) -> tuple[Holding, str]:
    """Finish or undo a rekey that was interrupted: afterwards one set is kept, the valid one."""
    new, now = at.kept.next, await rekeying.progress(client, road)
    if now.started and now.nonce == at.kept.attempt:
        if new is not None and now.verifying:
            await rekeying.verify(client, road, new)
            return await _adopt(at), FINISHED
        await rekeying.cancel(client, road, now.nonce)
        return await _undo(at), "the rekey that was begun before was cancelled"
    await _refuse_other(client, road, cancel_other)
    if new is not None and await rekeying.proves(client, road, new):
        return await _adopt(at), FINISHED
    if new is not None and not await rekeying.proves(client, road, at.kept.present):
        raise WrongServer(
            f"{at.server.name} takes neither its old shares nor the new ones",
            "somebody else rekeyed it meanwhile, or it is another server; both sets are kept",
            f"take its present shares in: kluis key import {at.path} --shares - --replace",
        )
    return await _undo(at), "the rekey that was begun before had not come to its end"


async def _refuse_other(client: ServerClient, road: Road, cancel_other: bool) -> None:
    now = await rekeying.progress(client, road)
    if now.started:
        if not cancel_other:
            raise roots.under_way("rekey", now.entered)
        await rekeying.cancel(client, road, now.nonce)


async def _begin(client: ServerClient, road: Road, at: Holding, wanted: tuple[int, int]) -> Holding:
    nonce = await rekeying.begin(client, road, *wanted)
    try:
        return await at.write(replace(at.kept, step="rekeying", attempt=nonce), EVENT)
    except BaseException:
        with contextlib.suppress(ServerError):
            await rekeying.cancel(client, road, nonce)
        raise


async def _authorise(client: ServerClient, road: Road, at: Holding) -> Holding:
    """The new shares are in the keyring when this is over, or nothing has changed."""
    try:
        new = await rekeying.authorise(client, road, at.kept.attempt, at.kept.present)
        return await at.write(replace(at.kept, next=new), EVENT)
    except BaseException as error:
        with contextlib.suppress(KluisError):  # what is not undone here is settled by the next run
            await rekeying.cancel(client, road, at.kept.attempt)
            await _undo(at)
        if isinstance(error, ServerAnswered):
            raise roots.refused_as_shares(error, str(at.path)) from None
        raise


def _next(at: Holding) -> Shares:
    if at.kept.next is None:
        raise ValueError("no new shares are kept")
    return at.kept.next


async def _adopt(at: Holding) -> Holding:
    """The new shares in the place of the old ones."""
    new = _next(at)
    kept = replace(at.kept, threshold=new.threshold, shares=new.shares)
    return await at.write(replace(kept, next=None, step="", attempt=""), EVENT)


async def _undo(at: Holding) -> Holding:
    """The old shares alone."""
    return await at.write(replace(at.kept, next=None, step="", attempt=""), EVENT)

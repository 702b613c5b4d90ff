"""``kluis server generate-root`` and ``kluis server rotate``: a root token for a while."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from kluis.errors import KluisError, ServerAnswered
from kluis.keyring.strict import JSON
from kluis.servers.ceremony import roads, roots, settling
from kluis.servers.ceremony.answers import members, number
from kluis.service.ceremony.rekeying import Holding, holding
from kluis.service.ceremony.standing import at_work, declared
from kluis.service.ceremony.uninterrupted import Uninterrupted, signals_wait
from kluis.service.house import House
from kluis.service.journal import record
from kluis.service.operations import Args, text

_ROOT_EVENT: Final = "server-generate-root"
_ROTATE_EVENT: Final = "server-rotate"


async def server_generate_root(house: House, args: Args) -> dict[str, JSON]:
    """A new root token out of the shares. Who hangs up meanwhile leaves none behind."""
    server = await declared(house, text(args, "server"))
    async with at_work(house, server.name):
        at = await holding(house, server, ())
        _put_on_record(at, _ROOT_EVENT)
        token = await _generated(at, text(args, "token"), args.get("cancel_other") is True)
    return {"server": server.name, "token": token}


def _put_on_record(at: Holding, event: str) -> None:
    record(at.house, event, server=at.server.name, keyring=at.path.keyring, key=at.path.key)


async def _generated(at: Holding, given: str, cancel_other: bool) -> str:
    with signals_wait(serving=at.house.serving) as came:
        async with Uninterrupted() as whole:
            token = await whole.apart(_generating(at, roads.GENERATE_ROOT, given, cancel_other))
            if whole.cancelled or came:  # nobody is there any more who would see it
                await whole.apart(_revoking(at, token))
    return token


def _generating(
    at: Holding, work: roads.Work, given: str, cancel_other: bool
) -> Callable[[], Coroutine[Any, Any, str]]:
    async def generate() -> str:
        async with at.client() as client:
            road = await roads.find(client, work, given or at.kept.root_token)
            shares = at.kept.present
            try:
                return await roots.generate(client, road, shares, cancel_other=cancel_other)
            except ServerAnswered as error:
                raise roots.refused_as_shares(error, str(at.path)) from None

    return generate


def _revoking(at: Holding, token: str) -> Callable[[], Coroutine[Any, Any, None]]:
    async def revoke() -> None:
        async with at.client() as client:
            await settling.revoke(client, token)

    return revoke


async def server_rotate(house: House, args: Args) -> dict[str, JSON]:
    """A new barrier key: with the token given, the root token that is kept, or one made for it.

    One made for it is in the keyring until it is revoked (step ``rotating``), so that none is
    left behind.
    """
    server = await declared(house, text(args, "server"))
    async with at_work(house, server.name):
        at = await _without_leftover(await holding(house, server, ("rotating",)))
        given, kept = text(args, "token"), at.kept.root_token
        _put_on_record(at, _ROTATE_EVENT)
        if not (given or kept):
            at = await _with_token(at, args.get("cancel_other") is True)
        term = await _rotated(at, given or at.kept.root_token)
        await _without_leftover(at)
    whose = "given" if given else "kept" if kept else "made"
    return {"server": server.name, "term": term, "token": whose}


async def _without_leftover(at: Holding) -> Holding:
    """A token that was made for one rotation is revoked, also that of a run that was killed."""
    if at.kept.step != "rotating":
        return at
    await _revoking(at, at.kept.root_token)()
    return await at.write(replace(at.kept, step="", root_token=""), _ROTATE_EVENT)


async def _with_token(at: Holding, cancel_other: bool) -> Holding:
    """A root token for this one work, kept before it is used."""
    with signals_wait(serving=at.house.serving):
        async with Uninterrupted() as whole:
            token = await whole.apart(_generating(at, roads.ROTATE, "", cancel_other))
            kept = replace(at.kept, step="rotating", root_token=token)
            try:
                return await whole.here(lambda: at.write(kept, _ROTATE_EVENT))
            except KluisError:
                await whole.apart(_revoking(at, token))
                raise


async def _rotated(at: Holding, token: str) -> int:
    """The number of the barrier's key, counted from 1."""
    async with at.client() as client:
        await client.call("PUT", "sys/rotate", token=token)
        return number(members(await client.call("GET", "sys/key-status", token=token)), "term")

"""Clients and their tokens."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from kluis.engine import change
from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.errors import UsageError
from kluis.keyring import tokens
from kluis.keyring.document import MAX_TOKENS, Client, Token
from kluis.keyring.strict import JSON
from kluis.service.house import House
from kluis.service.operations import Args, text

MAX_TOKEN_S: Final = 100 * 365 * 86_400
_TIME = "%Y-%m-%dT%H:%M:%SZ"


async def client_list(house: House, args: Args) -> dict[str, JSON]:
    """Every client, its keys, and its tokens' times."""
    clients: dict[str, JSON] = {}
    for guard in house.guards.values():
        for name, client in guard.document.clients.items():
            shown: list[JSON] = [{"issued": t.issued, "expires": t.expires} for t in client.tokens]
            networks: list[JSON] = [*client.networks]
            keys: list[JSON] = [f"{guard.name}/{key}" for key in client.keys]
            known = clients.get(name)
            if isinstance(known, dict) and isinstance(known["keys"], list):
                known["keys"].extend(keys)
                continue
            clients[name] = {
                "keys": keys,
                "certificate_san": client.certificate_san,
                "networks": networks,
                "tokens": shown,
            }
    return {"clients": clients}


async def client_issue(house: House, args: Args) -> dict[str, JSON]:
    """A new token for a client; its older ones end after ``overlap_s`` seconds."""
    name, overlap_s = text(args, "client"), _seconds(args, "overlap_s") or 0
    lives_s = _seconds(args, "expires_s")
    moment = datetime.now(UTC)
    end = (moment + timedelta(seconds=overlap_s)).strftime(_TIME)
    expires = (moment + timedelta(seconds=lives_s)).strftime(_TIME) if lives_s else None
    issued, token = tokens.generate(now(), expires)
    async with house.changing:
        for guard in await _open_guards_of(house, name):
            client = guard.document.clients[name]
            kept = [_ending(old, end) for old in tokens.valid(client, now())] if overlap_s else []
            newest = (*kept[-(MAX_TOKENS - 1) :], token)
            _write(guard, {**guard.document.clients, name: replace(client, tokens=newest)})
    return {"client": name, "token": issued, "expires": expires, "older_tokens_end": end}


async def client_revoke(house: House, args: Args) -> dict[str, JSON]:
    """End all tokens of a client, at once."""
    name = text(args, "client")
    async with house.changing:
        for guard in await _open_guards_of(house, name):
            clients = guard.document.clients
            _write(guard, {**clients, name: replace(clients[name], tokens=())})
    return {"client": name, "revoked": True}


def _ending(token: Token, end: str) -> Token:
    return replace(token, expires=min(end, token.expires or end))


def _seconds(args: Args, name: str) -> int | None:
    value = args.get(name)
    if not isinstance(value, int) or value <= 0:
        return None
    if value > MAX_TOKEN_S:
        raise UsageError(
            f"{name} of {value} is more than a hundred years", "no token lives so long", "take less"
        )
    return value


async def _open_guards_of(house: House, client: str) -> list[Guard]:
    if not house.serving:
        await house.open_once()
    found = [guard for guard in house.guards.values() if client in guard.document.clients]
    if not found:
        known = sorted({name for g in house.guards.values() for name in g.document.clients})
        raise UsageError(
            f"there is no client {client}",
            f"the clients are: {', '.join(known) or 'none'}",
            "declare it in kluis.toml and run kluis apply",
        )
    for guard in found:
        guard.require_open()
    return found


def _write(guard: Guard, clients: dict[str, Client]) -> None:
    opened = guard.require_open()
    guard.save(change.rewrite(opened, opened.contents, clients, now()).opened)

"""One look at declared servers, where nobody watches them: each node is asked once, and no more.

Nothing is sent to a server but the question for its state, and nothing is changed by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from kluis.errors import KluisError
from kluis.servers.client import ServerClient
from kluis.servers.declared import Server
from kluis.servers.watch import judging
from kluis.servers.watch.evidence import Answer, Case, Past, Verdict, rules
from kluis.servers.watch.states import Condition, Hold, NodeView, ServerView

TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 64


async def views(
    servers: Sequence[Server], holds: Mapping[str, Hold | None], now_s: float
) -> Sequence[ServerView]:
    """How the servers are, in their order. ``now_s`` is Unix time. Never raises KluisError."""
    turns = asyncio.Semaphore(AT_ONCE)
    found = (_view(server, holds.get(server.name), now_s, turns) for server in servers)
    return await asyncio.gather(*found)


async def _view(
    server: Server, hold: Hold | None, now_s: float, turns: asyncio.Semaphore
) -> ServerView:
    try:
        async with turns:
            addresses = await server.discovery.addresses()
    except KluisError as error:
        return ServerView(
            server.name,
            hold=hold,
            seen=error.seen,
            means=error.means,
            next_step=error.next_step,
        )
    nodes = await asyncio.gather(
        *(_node(server, address, hold is not None, now_s, turns) for address in addresses)
    )
    return ServerView(server.name, {node.address: node for node in nodes}, hold)


async def _node(
    server: Server, address: str, held: bool, now_s: float, turns: asyncio.Semaphore
) -> NodeView:
    version = ""
    try:
        async with turns, ServerClient(address, tls=server.tls, timeout_s=TIMEOUT_S) as client:
            status = await client.seal_status()
            active = not status.sealed and (await client.health()).active
    except KluisError as error:
        verdict = judging.failed(error)
    else:
        answer = Answer(status, active)
        past = Past().looked(answer, rules(server, address), now_s)
        verdict = judging.judge(Case(answer, rules(server, address), past, held, now_s))
        version = judging.shown_version(status)
    return _shown(address, verdict, version, now_s, server.name)


def _shown(address: str, verdict: Verdict, version: str, now_s: float, name: str) -> NodeView:
    if verdict.push:  # it would get its shares now, from whoever watches it
        verdict = replace(
            verdict,
            condition=Condition.SEALED,
            seen=f"{address} is sealed",
            means="nobody watches it here",
            next_step=f"kluis watch unseals {name}; or kluis watch --once",
        )
    return NodeView(
        address,
        verdict.condition,
        now_s,
        verdict.active,
        verdict.alarm,
        verdict.seen,
        verdict.means,
        verdict.next_step,
        version,
    )

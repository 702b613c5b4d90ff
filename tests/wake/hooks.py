"""Recoveries and hooks for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kluis.servers.declared import Listed, Server
from kluis.servers.tls import ServerTls
from kluis.wake.base import Recovered, Report

AT = datetime(2026, 5, 4, 3, 2, 1, 500_000, tzinfo=UTC)


def recovery(
    *wake: str, server: str = "bletchley", at: datetime = AT, address: str = "http://127.0.0.1:1"
) -> Recovered:
    """A server that is back and wakes these hooks."""
    return Recovered(
        Server(name=server, discovery=Listed((address,)), tls=ServerTls(), wake=wake), at, address
    )


async def nothing(_: Recovered) -> Report:
    return Report(("done",))


@dataclass
class Programmed:
    """A hook that does what the test says, and remembers for whom it ran."""

    name: str
    does: Callable[[Recovered], Awaitable[Report]] = nothing
    timeout_s: float = 30.0
    kind: str = "programmed"
    ran: list[Recovered] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def run(self, recovery: Recovered) -> Report:
        self.ran.append(recovery)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self.does(recovery)
        finally:
            self.under_way -= 1


class Gate:
    """Something that a hook waits at until the test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _: Recovered) -> Report:
        self.reached.set()
        await self.open.wait()
        return Report(("through",))

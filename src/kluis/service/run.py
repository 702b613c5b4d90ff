"""``kluis run``: the keyring, its facade and the server, in one process tree."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kluis.addresses import host_of, is_loopback
from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.facade.clients import PRIVATE_CLIENT, Caller, Grant
from kluis.keyring import tokens
from kluis.servers.client import ServerClient
from kluis.servers.handoff import (
    CURRENT_FD,
    Handoff,
    static_environment_handoff,
    static_handoff,
)
from kluis.servers.supervise import RestartLimit, supervise
from kluis.servers.tls import ServerTls
from kluis.service.house import House
from kluis.service.serve import Part, together
from kluis.service.static_seal import newest


@dataclass(frozen=True, slots=True)
class Supervised:
    """The server to run: its command, where it answers, and how often it may die.

    ``hidden`` are variables of the environment that it must not see.
    """

    argv: Sequence[str]
    address: str
    limit: RestartLimit
    log: Any
    hidden: Sequence[str] = ()

    async def run(self, handoff: Handoff) -> int:
        """Run the server until it ends for good; its exit code."""
        return await supervise(
            self.argv,
            handoff.without(*self.hidden),
            limit=self.limit,
            ready=self._active,
            log=self._say,
        )

    async def _active(self) -> None:
        local = is_loopback(host_of(self.address))
        async with ServerClient(self.address, tls=False if local else ServerTls()) as client:
            await client.wait_active()

    def _say(self, event: str, fields: Mapping[str, object]) -> None:
        self.log.info(event, **fields)


def private_client(keyring: str, key: str) -> tuple[str, dict[str, Caller]]:
    """A token for the one server of this process; it is known nowhere else, and dies with it."""
    text, token = tokens.generate(now())
    grant = Grant(frozenset({key}), None, (), None)
    return text, {token.sha256: Caller(PRIVATE_CLIENT, {keyring: grant})}


async def run_transit(
    house: House, parts: Sequence[Part], server: Supervised, handoff: Handoff
) -> int:
    """Start the server at once: while the keyring is locked, the facade holds its unseal."""
    return await _beside(house, parts, server.run(handoff))


async def run_static(
    house: House, parts: Sequence[Part], server: Supervised, guard: Guard, key: str
) -> int:
    """Start the server when the keyring is open: a static seal takes its key at the start."""

    async def when_open() -> int:
        while not await guard.wait_open(timeout_s=60.0):
            server.log.info("waiting", keyring=guard.name)
        with static_key(guard, key, server.argv) as handoff:
            return await server.run(handoff)

    return await _beside(house, parts, when_open())


async def _beside(house: House, parts: Sequence[Part], server: Coroutine[Any, Any, int]) -> int:
    code = await together(server, [house.serve(), *parts])
    return 1 if code is None else code


@contextmanager
def static_key(guard: Guard, name: str, argv: Sequence[str]) -> Iterator[Handoff]:
    """The two newest versions of a ``static-seal`` key, for the server to inherit.

    In memfds when the server's configuration names them; else in its environment.
    """
    pairs = newest(guard, name)
    current, previous = pairs[0], pairs[1] if len(pairs) > 1 else (None, None)
    if any(_names_the_memfd(argument) for argument in argv[1:]):
        with static_handoff(*current, *previous) as handoff:
            yield handoff
    else:
        yield static_environment_handoff(*current, *previous)


def _names_the_memfd(argument: str) -> bool:
    """Whether an argument is a server's configuration, file or folder, that names the memfd."""
    path = Path(argument.partition("=")[2] if argument.startswith("-") else argument)
    try:
        files = [path] if path.is_file() else [*path.glob("*.hcl"), *path.glob("*.json")]
        return any(f"/proc/self/fd/{CURRENT_FD}" in f.read_text("utf-8", "replace") for f in files)
    except OSError:
        return False

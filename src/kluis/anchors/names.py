"""Names of hosts, looked up in threads of our own.

A name server that hangs holds a look-up for many seconds, and nobody can break it off. An event
loop has few threads for all look-ups: two such names, and none is found any more. So each host has
its own bounded threads here, and what hangs holds up only itself.
"""

from __future__ import annotations

import socket
from functools import partial
from ipaddress import ip_address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from kluis.anchors.threads import Threads

MOST_LOOKUPS: Final = 4
"""At the same time, of one host."""

_threads: Final[dict[str, Threads]] = {}


class Resolver(AbstractResolver):
    """Looks up names for aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError, or Unreachable while too many look-ups hang."""
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=of, proto=0, flags=_NUMERIC
            )
            for of, address in await addresses(host, port, family)
        ]

    async def close(self) -> None:
        """Nothing is kept."""


async def addresses(
    host: str, port: int, family: int = socket.AF_UNSPEC
) -> list[tuple[socket.AddressFamily, str]]:
    """Family and address of a host, in the system's order. Raises OSError or Unreachable."""
    try:
        version = ip_address(host).version
    except ValueError:
        pass
    else:
        return [(socket.AF_INET if version == 4 else socket.AF_INET6, host)]
    look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
    found = await _threads.setdefault(host, Threads(MOST_LOOKUPS)).run(look_up)
    return [(of, str(address[0])) for of, _, _, _, address in found]


_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV

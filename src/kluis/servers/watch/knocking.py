"""A knock: whether somebody listens at an address. Not a byte is sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from yarl import URL

from kluis.anchors.names import addresses
from kluis.errors import AnchorError, UsageError
from kluis.servers.listener import OWN_FAULTS

KNOCK_S: Final = 0.5
NAME_S: Final = 3.0
MOST_PLACES: Final = 4  # of one name that has several addresses


@dataclass(frozen=True, slots=True)
class Knock:
    """What a TCP connect found: the IP address that took it, empty when none did.

    ``refused``: the machine is there, and nobody listens on it.
    """

    place: str = ""
    refused: bool = False


async def knock(address: str) -> Knock:
    """Knock at a URL. Takes half a second at most for each address that its name has.

    Raises UsageError, and OSError when this process can't open a connection at all.
    """
    host, port = _host_and_port(address)
    try:
        async with asyncio.timeout(NAME_S):
            found = (await addresses(host, port))[:MOST_PLACES]
    except (OSError, UnicodeError, AnchorError):
        return Knock()  # the name is not known, or nobody tells
    refusals = 0
    for _, place in found:
        try:
            await _connect(place, port)
        except ConnectionRefusedError:
            refusals += 1
        except OSError as error:  # TimeoutError is one
            if error.errno in OWN_FAULTS:
                raise
        else:
            return Knock(place)
    return Knock(refused=0 < refusals == len(found))


async def _connect(place: str, port: int) -> None:
    async with asyncio.timeout(KNOCK_S):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, place, port)
    transport.abort()


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        url = URL(address)
        if url.host and url.port:
            return url.host, url.port
    except ValueError:
        pass
    raise UsageError(
        "the address of a node is none",
        "an address is a scheme, a host and a port",
        "write it as https://bao.example:8200",
    )

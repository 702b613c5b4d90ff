"""A fleet of servers that are well: as many addresses of loopback as are asked for, one process.

``python -m bench.fleet PORT CERTIFICATE KEY`` answers ``sys/seal-status`` and ``sys/health`` on
every address of 127.0.0.0/8, over TLS, as an unsealed OpenBao does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Iterator
from typing import Final

import uvloop

CLUSTER_ID: Final = "6f0fa5a4-2e21-4b0b-8a0a-6d4a5b1e2c3d"
_WELL: Final = {
    "type": "shamir",
    "initialized": True,
    "sealed": False,
    "t": 2,
    "n": 3,
    "progress": 0,
    "nonce": "",
    "version": "2.7.2",
    "migration": False,
    "recovery_seal": False,
    "storage_type": "raft",
    "cluster_name": "fleet",
    "cluster_id": CLUSTER_ID,
    "standby": False,
}
_BODY: Final = json.dumps(_WELL).encode()
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY


def addresses(count: int, port: int) -> Iterator[str]:
    """As many addresses of the fleet."""
    for number in range(count):
        yield f"https://127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}:{port}"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


async def _serve(port: int, certificate: str, key: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = await asyncio.start_server(_answer, "0.0.0.0", port, ssl=tls, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))

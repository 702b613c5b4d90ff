"""A thousand simulated servers in one process of their own, each at its own loopback address.

    with fleet(1000, hung=50) as addresses: ...

They answer as unsealed stock servers do; the last ``hung`` of them take connections and requests,
and never answer. Only what is asked of well servers is simulated: everything that matters is tested
against real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.bao import free_port

HEALTH = {
    "initialized": True,
    "sealed": False,
    "standby": False,
    "version": "2.7.2",
    "cluster_id": "00000000-0000-4000-8000-000000000000",
}
STATUS = {**HEALTH, "type": "shamir", "t": 3, "n": 5, "progress": 0, "nonce": ""}


@contextlib.contextmanager
def fleet(count: int, *, hung: int = 0) -> Iterator[list[str]]:
    """The addresses of as many simulated servers, which run while the block does."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.support.fleet", str(port), str(count), str(hung)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    with process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n", "the simulated servers did not start"
            yield [f"http://{host}:{port}" for host in _hosts(count)]
        finally:
            process.kill()


def _hosts(count: int) -> list[str]:
    return [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._transport.write(_answer(HEALTH if b"sys/health" in head else STATUS))


def _answer(body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


async def _serve(port: int, count: int, hung: int) -> None:
    loop = asyncio.get_running_loop()
    for number, host in enumerate(_hosts(count)):
        kind = asyncio.Protocol if number >= count - hung else _Server
        await loop.create_server(kind, host, port)
    os.write(1, b"ready\n")
    await asyncio.Event().wait()


def _allow_open_files() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    _allow_open_files()
    asyncio.run(_serve(*map(int, sys.argv[1:])))

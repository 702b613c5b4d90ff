"""Thousands of servers that come back at once, as one process: what each one's seal would send.

Each opens a TLS connection of its own, renews its token, sends the boot probe, and then a decrypt
that is held while kluis is locked. Read from standard input: a ``Storm`` as JSON. Written to
standard output: a line when every decrypt was sent, and the outcome as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import urlsplit

import uvloop

from bench.processes import raise_open_files_limit

# A client of a stock server gives up on a call after 60 s.
BUDGET_S: Final = 60.0
SOURCES: Final = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
SENT: Final = "every decrypt was sent"


@dataclass(frozen=True)
class Storm:
    """Whom to call, how often, and what to expect."""

    address: str
    ca_file: str
    mount: str
    key: str
    token: str
    ciphertext: str
    plaintext: str
    connections: int


@dataclass(frozen=True)
class Outcome:
    """What came of it. Times are seconds; ``*_at_s`` are of the monotonic clock."""

    served: int
    failures: dict[str, int]
    began_at_s: float
    sent_at_s: float
    first_served_at_s: float
    last_served_at_s: float
    connect_s: list[float]
    longest_call_s: float


class _Clients:
    """All the clients, and what they saw."""

    def __init__(self, storm: Storm) -> None:
        self._storm = storm
        url = urlsplit(storm.address)
        self._host, self._port = url.hostname or "", url.port or 0
        self._tls = ssl.create_default_context(cafile=storm.ca_file)
        self._left = storm.connections
        self._sent_at_s = 0.0
        self._served_at_s: list[float] = []
        self._connect_s: list[float] = []
        self._longest_call_s = 0.0
        self._failures: dict[str, int] = {}

    async def run(self) -> Outcome:
        began_at_s = time.monotonic()
        await asyncio.gather(*map(self._one, range(self._storm.connections)))
        return Outcome(
            served=len(self._served_at_s),
            failures=self._failures,
            began_at_s=began_at_s,
            sent_at_s=self._sent_at_s,
            first_served_at_s=min(self._served_at_s, default=0.0),
            last_served_at_s=max(self._served_at_s, default=0.0),
            connect_s=sorted(round(s, 4) for s in self._connect_s),
            longest_call_s=self._longest_call_s,
        )

    async def _one(self, number: int) -> None:
        sent = False
        try:
            began_s = time.monotonic()
            async with asyncio.timeout(BUDGET_S):
                reader, writer = await asyncio.open_connection(
                    self._host,
                    self._port,
                    ssl=self._tls,
                    limit=8192,
                    local_addr=(SOURCES[number % len(SOURCES)], 0),
                )
            self._connect_s.append(time.monotonic() - began_s)
            try:
                await self._call(reader, writer, "auth/token/renew-self", {"increment": 0})
                await self._call(reader, writer, self._path("encrypt"), {"plaintext": "YQ=="})
                sent = True
                self._count_sent()
                body = {"ciphertext": self._storm.ciphertext}
                answer = await self._call(reader, writer, self._path("decrypt"), body)
                if self._storm.plaintext.encode() not in answer:
                    raise ValueError("another plaintext")
                self._served_at_s.append(time.monotonic())
            finally:
                writer.transport.abort()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a client not served
            name = f"{type(error).__name__}: {error}"
            self._failures[name] = self._failures.get(name, 0) + 1
        if not sent:
            self._count_sent()

    def _path(self, operation: str) -> str:
        return f"{self._storm.mount}/{operation}/{self._storm.key}"

    def _count_sent(self) -> None:
        self._left -= 1
        if not self._left:
            self._sent_at_s = time.monotonic()
            print(SENT, flush=True)

    async def _call(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        path: str,
        body: Mapping[str, str | int],
    ) -> bytes:
        began_s = time.monotonic()
        content = json.dumps(body).encode()
        writer.write(
            f"PUT /v1/{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"X-Vault-Token: {self._storm.token}\r\nX-Vault-Request: true\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        async with asyncio.timeout(BUDGET_S):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = await reader.readexactly(_length(head))
        self._longest_call_s = max(self._longest_call_s, time.monotonic() - began_s)
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            raise ValueError(f"{path} was answered {status}")
        return answer


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without a length")


def main() -> None:
    storm = Storm(**json.loads(sys.stdin.readline()))
    raise_open_files_limit(storm.connections + 64)
    print(json.dumps(asdict(uvloop.run(_Clients(storm).run()))), flush=True)


if __name__ == "__main__":
    main()

"""A server that says whatever a test wants, by TLS or without, and keeps what it was asked.

    with Pretender(says, tls=issued) as pretender:
        ...
        assert not pretender.shares

It is for what a stock server can't be made to do: to be another one with the same name, to lie, to
hang in the middle, to send garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Final, Self

from tests.support.bao import free_port
from tests.support.tls import Issued

CLUSTER_ID: Final = "00000000-0000-4000-8000-000000000000"
SEALED: Final[Mapping[str, object]] = {
    "type": "shamir",
    "initialized": True,
    "sealed": True,
    "t": 3,
    "n": 5,
    "progress": 0,
    "nonce": "",
    "version": "2.7.2",
    "migration": False,
    "recovery_seal": False,
    "storage_type": "raft",
}
UNSEALED: Final[Mapping[str, object]] = {
    **SEALED,
    "sealed": False,
    "standby": False,
    "cluster_name": "pretender",
    "cluster_id": CLUSTER_ID,
}

# The bytes of a whole answer to a method, a path and a body; None: none ever comes.
Says = Callable[[str, str, bytes], bytes | None]


def answer(body: object, status: int = 200, headers: str = "") -> bytes:
    """An HTTP answer with a JSON body."""
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


def always(body: Mapping[str, object]) -> Says:
    """The same to every question."""
    return lambda method, path, given: answer(body)


class Pretender:
    """Runs in a thread of its own while it is entered. ``asked`` has every path."""

    def __init__(self, says: Says, tls: Issued | None = None, port: int | None = None) -> None:
        self.says = says
        self.asked: list[str] = []
        self.heads: list[str] = []
        """Request lines and headers, in small letters."""
        self.shares: list[str] = []
        """What came to sys/unseal."""
        self.port = port or free_port()
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._tls = None
        if tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls.certificate, tls.key)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        talks: set[asyncio.Task[None]] = set()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.add(task)
            with contextlib.suppress(OSError, EOFError, ValueError, asyncio.CancelledError):
                await self._talk(reader, writer)
                writer.close()
                await writer.wait_closed()
            writer.transport.abort()  # or it would wait for the other end to say goodbye
            talks.discard(task)

        server = await asyncio.start_server(talk, "127.0.0.1", self.port, ssl=self._tls)
        ready.set()
        await self._end.wait()
        for listening in server.sockets:  # to close it now would lose a connection just taken
            self._loop.remove_reader(listening.fileno())
        for _ in range(5):  # a connection that was just taken has no task yet
            await asyncio.sleep(0.002)
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            method, path = head.split()[:2]
            length = head.partition("content-length:")[2].split("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            self.asked.append(path)
            self.heads.append(head)
            if path.endswith("/sys/unseal"):
                self.shares.append(body.decode())
            said = self.says(method.upper(), path, body)
            if said is None:
                await self._end.wait()
                return
            writer.write(said)
            await writer.drain()
            if b"\r\n\r\n" not in said:  # no whole answer: nobody shall wait for the rest of it
                return

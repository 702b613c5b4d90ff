"""The network between the nodes of a raft cluster, from which each of them can be cut off.

with Links(nodes) as links:             # before they are started
    links.cut_off(0)                    # from all others, both ways; its API is reached as before
    links.heal()

Each node advertises a relay's port as its ``cluster_addr``. What is cut is silent, as when a cable
is pulled: no connection ends, and what was on its way arrives late.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Self

from tests.support.bao import Bao

POLL_S: Final = 0.01
CHUNK_BYTES: Final = 1 << 16

Take = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Links:
    """A relay before the cluster port of every node; runs in a thread while it is entered."""

    def __init__(self, nodes: Sequence[Bao]) -> None:
        self._nodes = nodes
        self._cut: frozenset[int] = frozenset()
        self._ends: list[asyncio.StreamWriter] = []

    def cut_off(self, number: int) -> None:
        """Let nothing pass between this node and the others."""
        self._cut |= {number}

    def heal(self) -> None:
        """Let everything pass again."""
        self._cut = frozenset()

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
        servers = []
        for number, node in enumerate(self._nodes):
            servers.append(await asyncio.start_server(self._taker(number), "127.0.0.1", 0))
            node.advertise(servers[-1].sockets[0].getsockname()[1])
        ready.set()
        await self._end.wait()
        for server in servers:
            server.close()
        await asyncio.sleep(POLL_S)  # who was taken just now comes as far as the rest
        for end in self._ends:  # also where somebody does not read what is left
            end.transport.abort()

    def _taker(self, target: int) -> Take:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            dialler = _owner(writer.get_extra_info("peername")[1], self._nodes)
            ends = frozenset({dialler, target})
            self._ends.append(writer)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._passes(ends)
                port = self._nodes[target].cluster_port
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                self._ends.append(far_writer)
                await asyncio.gather(
                    self._pump(reader, far_writer, ends), self._pump(far_reader, writer, ends)
                )
            writer.close()

        return take

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, ends: frozenset[int | None]
    ) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                await self._passes(ends)
                sink.write(data)
            await self._passes(ends)
        finally:
            sink.close()

    async def _passes(self, ends: frozenset[int | None]) -> None:
        while self._cut & ends:  # noqa: ASYNC110 - set from another thread
            await asyncio.sleep(POLL_S)


def _owner(port: int, nodes: Sequence[Bao]) -> int | None:
    """Whose process has the near end of a loopback connection; None where it is gone already."""
    at = f"0100007F:{port:04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    sockets = {f"socket:[{fields[9]}]" for fields in lines if fields[1] == at}
    for number, node in enumerate(nodes):
        with contextlib.suppress(OSError):  # it was killed just now
            files = Path(f"/proc/{node.pid}/fd").iterdir()
            if any(_leads_to(file) in sockets for file in files):
                return number
    return None


def _leads_to(file: Path) -> str:
    with contextlib.suppress(OSError):
        return str(file.readlink())
    return ""

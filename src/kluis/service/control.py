"""The control socket: one JSON object a line, in both directions, on a Unix socket.

    → {"op": "status", "args": {}}
    ← {"ok": {…}}  or  {"error": {"class", "seen", "means", "next"}}

Shares and tokens cross it, so it is for the service's own user and root only: the socket is 0600
and the kernel is asked who is at the other end. Whoever holds the folder's process lock may
remove a socket that a crash left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import traceback
from pathlib import Path
from typing import Final

from kluis.errors import KluisError, ServiceError, UsageError
from kluis.keyring.strict import JSON
from kluis.service import journal, operations
from kluis.service.asking import MAX_LINE_BYTES, peer_user
from kluis.service.house import House, explain_error

_NOT_A_REQUEST: Final = UsageError(
    "this is not a request",
    'one reads {"op": NAME, "args": {…}} on one line',
    "use the kluis command of the same version",
)

_BROKEN_OFF: Final = ServiceError(
    "the work was broken off in the service",
    "a connection that it waited for ended in an unusual way",
    "run the command again: it goes on from where things stand",
)

_LOOK_S: Final = 0.1


class ControlServer:
    """Answers commands on a Unix socket."""

    def __init__(self, house: House, path: Path) -> None:
        """Listens from now on. Raises ServiceError."""
        self._house = house
        self._path = path
        try:
            self._socket = self._listen()
        except OSError as error:
            raise ServiceError(
                f"the control socket {path} can't be made: {error.strerror or error}",
                "without it nobody could unlock or lock the keyrings",
                "mend the folder, or name another path: control in [service] of kluis.toml",
            ) from None

    async def serve(self) -> None:
        """Serve until cancelled; then remove the socket."""
        server = await asyncio.start_unix_server(
            self._talk, sock=self._socket, limit=MAX_LINE_BYTES
        )
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid not in (0, os.getuid()) or stat.S_IMODE(status.st_mode) & 0o022:
            raise ServiceError(
                f"others can write to {folder}",
                "somebody could put a socket of their own there",
                f"chmod 700 {folder}",
            )
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(os.fspath(self._path))
            listening.listen()
        finally:
            os.umask(before)
        return listening

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _may_ask(writer):
                journal.asking_user.set(peer_user(writer.get_extra_info("socket")))
                while line := await reader.readline():
                    answer = await self._answer_unless_gone(line, reader)
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        except (ConnectionError, ValueError):
            pass  # it went away, or sent a line without an end
        except asyncio.CancelledError:  # the service ends, and waits for nobody who does not read
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_unless_gone(
        self, line: bytes, reader: asyncio.StreamReader
    ) -> dict[str, JSON]:
        """The answer. Who hangs up meanwhile stops the operation: its paper would reach nobody.

        An operation writes without a pause at its end, so it is stopped before that or not at all.
        """
        answering = asyncio.create_task(self._answer(line))
        try:
            while not answering.done():
                await asyncio.wait({answering}, timeout=_LOOK_S)
                if reader.at_eof():
                    raise ConnectionResetError
            if answering.cancelled():  # by nobody here: what it waited for was broken off
                return {"error": {**explain_error(_BROKEN_OFF)}}
            return answering.result()
        finally:
            answering.cancel()

    async def _answer(self, line: bytes) -> dict[str, JSON]:
        try:
            request = json.loads(line)
            name, args = str(request["op"]), dict(request["args"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": {**explain_error(_NOT_A_REQUEST)}}
        try:
            return {"ok": await operations.call(self._house, name, args)}
        except KluisError as error:
            return {"error": {**explain_error(error)}}
        except Exception as error:  # noqa: BLE001 - a fault must reach the person who asked
            return {"error": {**explain_error(_fault(error))}}


def _fault(error: Exception) -> ServiceError:
    """The class of a fault and its place; its text could carry a secret."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return ServiceError(
        f"unexpected {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}",
        "this is a fault of kluis",
        "kluis status says where things stand; please report this",
    )


def _may_ask(writer: asyncio.StreamWriter) -> bool:
    return peer_user(writer.get_extra_info("socket")) in (0, os.getuid())

"""Listening: the socket, its TLS, and the sweep that ends what takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from kluis.errors import KluisError, ListenFailed, SettingsError
from kluis.facade.protocol import BoundedProtocol
from kluis.facade.served import Served
from kluis.facade.tls import TlsFiles

BACKLOG: Final = 4096
HANDSHAKE_S: Final = 10.0
STOP_S: Final = 1.0
_SWEEP_S: Final = 1.0
_CROWDED: Final = 0.75


class FacadeServer:
    """Serves a facade, or the like, on one address until it is stopped."""

    def __init__(
        self,
        facade: Served,
        host: str,
        port: int,
        tls: TlsFiles | None,
        log: Any,
        setting: str = "facade.listen",
    ) -> None:
        """``setting`` names the address in kluis.toml. Raises SettingsError or ListenFailed."""
        self._facade = facade
        self._tls = tls
        self._stamp = tls.stamp() if tls else ()
        self._context = self._read_tls(tls) if tls else None
        self._socket = _listen(host, port, setting)
        self._log = log
        self._state = ServerState()
        self._config = Config(
            facade,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a stranger's garbage is nothing to fill the log with
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=int(facade.limits.idle_s),
        )
        self._config.load()
        self._server: asyncio.Server | None = None
        raise_open_files_limit()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, as bound."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def serve(self) -> None:
        """Serve until cancelled; then finish nothing, and close."""
        await self._start()
        try:
            while True:
                await asyncio.sleep(_SWEEP_S)
                self._sweep()
                await self._reload_tls()
        finally:
            if self._server is not None:
                self._server.close()
            self._socket.close()
            for connection in list(self._state.connections):
                connection.transport.abort()
            if self._state.tasks:
                await asyncio.wait(self._state.tasks, timeout=STOP_S)

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: BoundedProtocol(self._config, self._state, self._facade),
            sock=self._socket.dup(),
            backlog=BACKLOG,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S if self._context else None,
        )

    def _read_tls(self, tls: TlsFiles) -> ssl.SSLContext:
        """The context of the files as they are now. Raises SettingsError."""
        context = tls.context()
        self._facade.certificate_ends_s = tls.ends_s()
        return context

    def _sweep(self) -> None:
        now_s = asyncio.get_running_loop().time()
        crowded = self._facade.connections > self._facade.limits.connections * _CROWDED
        for connection in list(self._state.connections):
            if not isinstance(connection, BoundedProtocol):
                continue
            if connection.overdue(now_s):
                connection.transport.abort()
            elif crowded and connection.idle:
                connection.transport.close()  # others need the place; a client comes again
        try:
            self._facade.tidy()
        except KluisError as error:
            self._say(self._log.error, "audit", seen=error.seen, next=error.next_step)

    async def _reload_tls(self) -> None:
        if self._tls is None or self._tls.stamp() == self._stamp:
            return
        self._stamp = self._tls.stamp()
        try:
            self._context = self._read_tls(self._tls)
        except SettingsError as error:
            self._say(self._log.error, "tls not reloaded", seen=error.seen, next=error.next_step)
            return
        old = self._server
        await self._start()
        if old is not None:
            old.close()
        self._say(self._log.info, "tls reloaded")

    def _say(self, level: Callable[..., None], event: str, **fields: str) -> None:
        with contextlib.suppress(OSError):  # a log on a full disk must not end the service
            level(event, **fields)


def _listen(host: str, port: int, setting: str = "facade.listen") -> socket.socket:
    listening: socket.socket | None = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is too long
        if listening is not None:
            listening.close()
        code = error.errno if isinstance(error, OSError) else None
        means = {
            errno.EADDRINUSE: "another program listens there",
            errno.EADDRNOTAVAIL: "it is not an address of this machine",
            errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
        }.get(code or 0, "the name or the address can't be used")
        raise ListenFailed(
            f"can't listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            means,
            f"change {setting} in kluis.toml, or stop the other program",
        ) from None
    return listening


def raise_open_files_limit() -> None:
    """Let this process open as many files as the system allows it to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

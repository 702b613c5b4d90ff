"""A facade in this process, in a thread with an event loop of its own, on a real socket.

    with serving(tmp_path, Keyring("homelab", ["bletchley"])) as facade:
        token = facade.token("bletchley")
        facade.lock("homelab")
        facade.put("homelab/decrypt/bletchley", {"ciphertext": "…"}, token)

Its keyrings open by a programmable anchor, ``disk``. Whatever the loop or a logger complains of
fails the test at the end. Every wait polls with a deadline; nothing sleeps to synchronise.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop

from kluis.engine import change
from kluis.engine.clock import now
from kluis.engine.guard import Guard
from kluis.facade.app import Facade
from kluis.facade.audit import AuditLog
from kluis.facade.clients import Caller
from kluis.facade.limits import Limits
from kluis.facade.server import FacadeServer
from kluis.facade.tls import TlsFiles
from kluis.keyring import policy, tokens, tree
from kluis.keyring.body import Contents
from kluis.keyring.document import Client, Document, Token
from kluis.keyring.keys import Key
from kluis.keyring.plan import Wanted, WantedClient
from kluis.store.directory import DirectoryStore
from tests.support.bao import wait_until
from tests.support.failing_anchor import FailingAnchor

DEADLINE_S: Final = 30.0
SLOWEST_S: Final = 20.0  # a hundred times what a busy machine needs for an answer
DENIED: Final[Mapping[str, object]] = {"errors": ["permission denied"]}

DEFAULT_LIMITS: Final = Limits()

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """An answer of the facade."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """Its JSON object."""
        found = json.loads(self.raw)
        assert isinstance(found, dict), self.raw
        return found

    @property
    def data(self) -> dict[str, Any]:
        """The data it carries."""
        assert self.status == 200, (self.status, self.raw)
        found = self.body["data"]
        assert isinstance(found, dict), self.raw
        return found

    @property
    def plaintext(self) -> bytes:
        """What a decrypt released."""
        return base64.b64decode(self.data["plaintext"])


@dataclass
class Keyring:
    """A keyring to make: its transit keys, and its clients (one for each key, if none is given)."""

    name: str = "homelab"
    keys: Sequence[str] = ("bletchley",)
    clients: Mapping[str, WantedClient] = field(default_factory=dict)

    def wanted(self) -> Wanted:
        """As the configuration would declare it."""
        return Wanted(
            self.name,
            policy.parse("disk"),
            {"disk": tree.AnchorLeaf("disk", FailingAnchor.kind)},
            dict.fromkeys(self.keys, "transit"),
            self.clients or {key: WantedClient((key,)) for key in self.keys},
        )


class RunningFacade:
    """A facade that serves. Use ``serving``."""

    def __init__(
        self,
        folder: Path,
        keyrings: Sequence[Keyring],
        limits: Limits,
        tls: TlsFiles | None,
        private: Mapping[str, Caller],
        host: str,
    ) -> None:
        self.folder = folder
        self.audit_file = folder / "audit.jsonl"
        self.anchor = FailingAnchor("disk")
        self.tokens: dict[str, str] = {}
        self.guards: dict[str, Guard] = {}
        self.store = DirectoryStore(folder / "state")
        self.complaints: list[str] = []
        self.logged: list[tuple[str, dict[str, object]]] = []
        self._issued: dict[str, Token] = {}
        self._serves = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(keyrings, limits, tls, private, host), name="facade"
        )

    # -- the thread

    def start(self) -> None:
        """Start, and return when it listens. Raises what a facade raises at its start."""
        self._thread.start()
        assert self._serves.wait(DEADLINE_S), "the facade does not start"
        if self._failed is not None:
            self._thread.join(DEADLINE_S)
            raise self._failed

    def stop(self) -> None:
        """Stop, and fail if anything complained."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the facade does not stop"
        assert self._failed is None, self._failed
        assert self.complaints == [], self.complaints

    def _run(self, *arguments: Any) -> None:
        try:
            uvloop.run(self._main(*arguments))
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            self._failed = error
        finally:
            self._serves.set()

    async def _main(
        self,
        keyrings: Sequence[Keyring],
        limits: Limits,
        tls: TlsFiles | None,
        private: Mapping[str, Caller],
        host: str,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._complain)
        self._stop = asyncio.Event()
        for keyring in keyrings:
            self.guards[keyring.name] = await self._make(keyring)
        self.facade = Facade(self.guards, private, AuditLog(self.audit_file), limits)
        self.server = FacadeServer(self.facade, host, 0, tls, self)
        self.host, self.port = self.server.address
        tasks = [asyncio.create_task(guard.keep_open()) for guard in self.guards.values()]
        serving = asyncio.create_task(self.server.serve())
        stop = asyncio.create_task(self._stop.wait())
        self._serves.set()
        try:
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        finally:
            for task in (serving, stop, *tasks):
                task.cancel()
            await asyncio.gather(serving, stop, *tasks, return_exceptions=True)
            self.facade.audit.close()
            ending = asyncio.all_tasks() - {asyncio.current_task()}
            left = (await asyncio.wait(ending, timeout=DEADLINE_S))[1] if ending else ()
            self.complaints += [f"a task is left: {task}" for task in left]

    async def _make(self, keyring: Keyring) -> Guard:
        made = await change.make(keyring.wanted(), {"disk": self.anchor}, self._tokens_of, now())
        self.store.save(made.opened.document, after=0)
        guard = Guard(made.opened.document, self.store, {"disk": self.anchor})
        guard.adopt(made.opened)
        return guard

    def _tokens_of(self, client: str) -> tuple[Token, ...]:
        if client not in self._issued:
            self.tokens[client], self._issued[client] = tokens.generate(now())
        return (self._issued[client],)

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def info(self, event: str, **fields: object) -> None:
        """The service's log."""
        self.logged.append((event, fields))

    error = warning = info

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the facade's loop; what it returns."""

        async def calling() -> T:
            return function()

        return self.await_(calling())

    def await_(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await something in the facade's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE_S)

    # -- keyrings

    def token(self, client: str) -> str:
        """The token of a client that was made with the facade."""
        return self.tokens[client]

    def document(self, keyring: str = "homelab") -> Document:
        """The document as the facade knows it."""
        return self.guards[keyring].document

    def lock(self, keyring: str = "homelab") -> None:
        """Lock by hand."""
        self.call(self.guards[keyring].lock)

    def open(self, keyring: str = "homelab") -> None:
        """Let it open, and wait until it is."""
        guard = self.guards[keyring]
        self.call(guard.release)
        assert self.await_(guard.wait_open(DEADLINE_S)), "it does not open"

    def rewrite(
        self,
        keyring: str = "homelab",
        clients: Mapping[str, Client] | None = None,
        keys: Mapping[str, Key] | None = None,
    ) -> None:
        """Write the open keyring with other clients or keys."""

        def rewriting() -> None:
            guard = self.guards[keyring]
            opened = guard.require_open()
            contents = Contents(keys or opened.contents.keys, opened.contents.leaves)
            known = opened.document.clients if clients is None else clients
            guard.save(change.rewrite(opened, contents, known, now()).opened)

        self.call(rewriting)

    def rotate(self, key: str = "bletchley", keyring: str = "homelab") -> None:
        """Rotate a key."""

        def rotating() -> None:
            guard = self.guards[keyring]
            guard.save(change.rotate_key(guard.require_open(), key, now()).opened)

        self.call(rotating)

    def set_tokens(self, client: str, *issued: Token, keyring: str = "homelab") -> None:
        """Give a client these tokens and no others."""
        clients = dict(self.document(keyring).clients)
        clients[client] = replace(clients[client], tokens=issued)
        self.rewrite(keyring, clients)

    def encrypted(self, plaintext: bytes, key: str = "bletchley", keyring: str = "homelab") -> str:
        """A ciphertext, made without asking the facade."""
        return self.call(lambda: self.guards[keyring].transit(key).encrypt(plaintext))

    def real_wrap(self, key: str = "bletchley", keyring: str = "homelab") -> tuple[bytes, str]:
        """What a stock server wraps, and the ciphertext of it."""
        plaintext = json.dumps([base64.b64encode(secrets.token_bytes(32)).decode()]).encode()
        return plaintext, self.encrypted(plaintext, key, keyring)

    # -- requests

    @property
    def address(self) -> str:
        """As a seal stanza names it."""
        return f"http://127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Reply:
        """One request on a connection of its own. ``body`` is bytes, or becomes JSON."""
        connection = (
            http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE_S)
            if tls is None
            else http.client.HTTPSConnection("localhost", self.port, timeout=90, context=tls)
        )
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"X-Vault-Token": token} if token else {}
        with contextlib.closing(connection):
            connection.request(method, path, content, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers.items()), answer.read())

    def put(self, path: str, body: object = None, token: str = "", **more: Any) -> Reply:
        """``PUT /v1/<path>``."""
        return self.request("PUT", f"/v1/{path}", {} if body is None else body, token, **more)

    def get(self, path: str, token: str = "", **more: Any) -> Reply:
        """``GET /v1/<path>``."""
        return self.request("GET", f"/v1/{path}", None, token, **more)

    def decrypt(self, ciphertext: str, token: str, **more: Any) -> Reply:
        """Decrypt with the one key."""
        return self.put("homelab/decrypt/bletchley", {"ciphertext": ciphertext}, token, **more)

    def encrypt(self, plaintext: bytes, token: str, **more: Any) -> Reply:
        """Encrypt with the one key."""
        body = {"plaintext": base64.b64encode(plaintext).decode()}
        return self.put("homelab/encrypt/bletchley", body, token, **more)

    def connect(self, timeout_s: float = DEADLINE_S) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def exchange(self, sent: bytes, timeout_s: float = DEADLINE_S) -> bytes:
        """Send bytes, and read until the facade closes the connection."""
        with self.connect(timeout_s) as raw:
            with contextlib.suppress(ConnectionError):
                raw.sendall(sent)
            return read_to_end(raw)

    # -- what it did

    def audited(self) -> list[dict[str, Any]]:
        """All records of the audit log."""
        return [json.loads(line) for line in self.audit_file.read_text("ascii").splitlines()]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        wait_until(condition, what, DEADLINE_S)

    def wait_held(self, count: int) -> None:
        """Wait until so many requests are held."""
        self.wait(lambda: self.facade.hold.held == count, f"{count} requests are held")

    def metrics(self) -> dict[str, float]:
        """The samples of ``/metrics``, by name and labels."""
        lines = self.request("GET", "/metrics").raw.decode("ascii").splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}


def read_to_end(raw: socket.socket) -> bytes:
    """All that still comes, until the other side closes or breaks the connection off."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := raw.recv(65536):
            received += data
    return bytes(received)


@contextlib.contextmanager
def serving(
    folder: Path,
    *keyrings: Keyring,
    limits: Limits = DEFAULT_LIMITS,
    tls: TlsFiles | None = None,
    private: Mapping[str, Caller] | None = None,
    host: str = "127.0.0.1",
) -> Iterator[RunningFacade]:
    """A facade that serves these keyrings (by default one, homelab, with one key, bletchley)."""
    facade = RunningFacade(folder, keyrings or (Keyring(),), limits, tls, private or {}, host)
    with _no_complaints(facade.complaints):
        facade.start()
        try:
            yield facade
        finally:
            facade.stop()


@contextlib.contextmanager
def _no_complaints(complaints: list[str]) -> Iterator[None]:
    """Whatever asyncio or uvicorn logs as a warning or worse is a complaint."""

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    listening = Listening(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("asyncio", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(listening)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(listening)


class Good:
    """A well-behaved client that asks again and again while others misbehave."""

    def __init__(self, facade: RunningFacade, client: str = "bletchley") -> None:
        self._facade = facade
        self._token = facade.token(client)
        self._plaintext, self._ciphertext = facade.real_wrap()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="good client")
        self.answered = 0
        self.slowest_s = 0.0
        self.failed: list[str] = []

    def __enter__(self) -> Good:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)

    def _ask(self) -> None:
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                reply = self._facade.decrypt(self._ciphertext, self._token)
            except OSError as error:
                self.failed.append(repr(error))
                return
            if reply.status != 200 or reply.plaintext != self._plaintext:
                self.failed.append(f"{reply.status} {reply.raw!r}")
            self.answered += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - start)

    def check(self) -> None:
        """It was answered all along, rightly, and never as late as if somebody had been first."""
        before = self.answered
        wait_until(lambda: bool(self.failed) or self.answered > before, "it is still answered")
        assert self.failed == []
        assert self.slowest_s < SLOWEST_S

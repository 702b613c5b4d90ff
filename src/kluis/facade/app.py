"""The facade as an ASGI application: who asks, what, may they, the audit, the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kluis.addresses import is_loopback
from kluis.engine.guard import Guard
from kluis.errors import AuditError, KeyringKeyError, Locked
from kluis.facade import login, system, transit
from kluis.facade.audit import AuditLog, members
from kluis.facade.clients import Caller, Directory, Peer
from kluis.facade.hold import Hold
from kluis.facade.limits import Limits, Rate
from kluis.facade.metrics import Metrics
from kluis.facade.replies import Refusal, Reply, retry_after
from kluis.facade.requests import Gone, Receive, Request

_WRITES: Final = ("PUT", "POST")
_READS: Final = ("GET", "HEAD")


class Facade:
    """Answers servers' seals, monitors and people."""

    def __init__(
        self,
        guards: Mapping[str, Guard],
        private: Mapping[str, Caller],
        audit: AuditLog,
        limits: Limits,
    ) -> None:
        self.audit = audit
        self.limits = limits
        self.hold = Hold(limits.held, limits.hold_s)
        self.connections = 0
        self.metrics = Metrics(guards, lambda: self.hold.held, lambda: self.connections)
        self._guards = guards
        self._directory = Directory(guards, private)
        self._requests = Rate(limits.requests_per_s)
        self._denials = Rate(limits.denials_per_s)

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        """Answer one request (ASGI)."""
        try:
            reply = await self._answer(_request(scope, receive))
        except Gone:
            return
        length = (b"content-length", str(len(reply.body)).encode("ascii"))
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [*reply.headers, length],
            }
        )
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, request: Request) -> Reply:
        match request.segments:
            case (mount, operation, key) if operation in transit.OPERATIONS:
                return await self._authenticated(request, operation, mount, key)
            case (mount, "keys", key):
                return await self._authenticated(request, "keys", mount, key)
            case ("auth", "token", ("renew-self" | "lookup-self") as operation):
                return await self._authenticated(request, operation)
            case ("sys", ("health" | "seal-status" | "leader") as what):
                return self._system(request, what)
            case ("metrics",):
                return self.metrics.reply()
            case _:
                return Refusal(404, ("no handler for this route",)).reply()

    def _system(self, request: Request, what: str) -> Reply:
        if request.method not in _READS:
            return Refusal(405, ("unsupported operation",)).reply()
        if what == "health":
            return system.health(
                self._guards, request.query, in_words=is_loopback(request.peer.address)
            )
        return system.seal_status(self._guards) if what == "seal-status" else system.leader()

    async def _authenticated(
        self, request: Request, operation: str, mount: str = "", key: str = ""
    ) -> Reply:
        """Answer a client. Every verdict is on record before the answer leaves."""
        caller: Caller | None = None
        names = {"operation": operation, "keyring": mount, "key": key}
        try:
            caller = self._admit(request)
            if operation in ("renew-self", "lookup-self"):
                return self._login(request, operation, caller)
            _refuse_method(request, operation)
            guard = transit.resolve(self._guards, caller, mount, key)
            names["keyring"] = guard.name
            outcome = await self._use(request, operation, caller, guard, key)
            self._record(request, caller, names, outcome.what, "released", outcome.version)
            if outcome.what == "unseal":
                self.metrics.unsealed(guard.name, key, caller.name)
            return outcome.reply
        except Refusal as refusal:
            return self._refused(request, caller, names, refusal)
        except KeyringKeyError as error:
            bad = Refusal(400, (error.seen, error.means), type(error).__name__)
            return self._refused(request, caller, names, bad)
        except Locked as error:
            return self._refused(request, caller, names, Refusal(503, (error.seen,), "locked"))
        except AuditError as error:
            return Refusal(500, (error.seen, error.means)).reply()

    def _admit(self, request: Request) -> Caller:
        if request.namespace not in (b"", b"root", b"root/"):
            raise Refusal(404, ("there are no namespaces here",), "namespace")
        caller = self._directory.authenticate(request.token, request.peer, _now())
        if not self._requests.allows(caller.name, time.monotonic()):
            raise Refusal(429, ("too many requests",), "rate", retry_after(1))
        return caller

    def _login(self, request: Request, operation: str, caller: Caller) -> Reply:
        now = datetime.now(UTC)
        self._record(request, caller, {"operation": operation}, "token", "released")
        if operation == "renew-self":
            return login.renew(caller, request.token.decode("ascii"), now)
        return login.look_up(caller, now)

    async def _use(
        self, request: Request, operation: str, caller: Caller, guard: Guard, key: str
    ) -> transit.Outcome:
        if operation == "keys":
            return transit.read(guard, key)
        body = await request.body(self.limits.body_bytes)

        def recheck() -> None:
            again = self._directory.authenticate(request.token, request.peer, _now())
            transit.resolve(self._guards, again, guard.name, key)

        if operation == "decrypt" and not guard.is_open:
            held = {"operation": operation, "keyring": guard.name, "key": key}
            self._record(request, caller, held, "held until open", "waits")
        return await transit.use(operation, request, guard, key, self.hold, body, recheck)

    def _refused(
        self, request: Request, caller: Caller | None, names: dict[str, str], refusal: Refusal
    ) -> Reply:
        if refusal.status == 403:
            self.metrics.denials.inc()
            if not self._denials.allows(request.peer.address, time.monotonic()):
                # Not on record: a flood must not fill the disk. The metric counts it.
                return Refusal(429, ("too many denied requests",), "", retry_after(2)).reply()
        verdict = "denied" if refusal.status == 403 else "refused"
        try:
            self._record(request, caller, names, refusal.reason, verdict)
        except AuditError as error:
            return Refusal(500, (error.seen, error.means)).reply()
        return refusal.reply()

    def _record(
        self,
        request: Request,
        caller: Caller | None,
        names: Mapping[str, str],
        what: str,
        verdict: str,
        version: int = 0,
    ) -> None:
        fields = dict(names)
        if version:
            fields["version"] = str(version)
        self.audit.record(
            members(
                client=caller.name if caller else "",
                source=request.peer.address,
                **fields,
                what=what,
                verdict=verdict,
            )
        )
        purpose = what if verdict in ("released", "waits") else ""
        self.metrics.count(names["operation"], purpose, verdict)


def _refuse_method(request: Request, operation: str) -> None:
    if request.method not in (_READS if operation == "keys" else _WRITES):
        raise Refusal(405, ("unsupported operation",), "method")


def _request(scope: Any, receive: Receive) -> Request:
    token = namespace = b""
    for name, value in scope["headers"]:
        if name == b"x-vault-token":
            token = value
        elif name == b"x-vault-namespace":
            namespace = value
        elif name == b"authorization" and not token and value[:7].lower() == b"bearer ":
            token = value[7:].strip()
    path: str = scope["path"]
    segments = tuple(path[4:].split("/")) if path.startswith("/v1/") else (path.strip("/"),)
    peer: Peer = scope["state"]["peer"]
    query = scope["query_string"].decode("latin-1")
    return Request(scope["method"], segments, query, token, namespace, peer, receive)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

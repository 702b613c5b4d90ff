"""The facade as an ASGI application: who asks, what, may they, the audit, the answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from kluis import telemetry
from kluis.addresses import is_loopback
from kluis.engine.guard import Guard
from kluis.errors import AuditError, KeyringKeyError, Locked
from kluis.facade import login, system, transit
from kluis.facade.audit import AuditLog, members
from kluis.facade.clients import Caller, Directory, Peer
from kluis.facade.hold import Hold
from kluis.facade.limits import Limits, Rate
from kluis.facade.metrics import CONTENT_TYPE, Metrics
from kluis.facade.replies import Refusal, Reply, retry_after, send_reply
from kluis.facade.requests import Gone, Receive, Request
from kluis.facade.waits import Waiter, Waits

_WRITES: Final = ("PUT", "POST")
_READS: Final = ("GET", "HEAD")
_METHODS: Final = {"keys": _READS, "lookup-self": (*_READS, *_WRITES)}
_MAX_NAME_CHARS: Final = 128
_STRANGERS: Final = 16
"""All strangers together fill the audit log at most so many times as fast as one of them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for, in its own words."""

    operation: str
    keyring: str = ""
    key: str = ""


class Facade:
    """Answers servers' seals, monitors and people. Served by a FacadeServer."""

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
        self.certificate_ends_s: float | None = None
        self.metrics = Metrics(guards, self)
        self._guards = guards
        self._waits = Waits()
        self._directory = Directory(guards, private)
        self._requests = Rate(limits.requests_per_s)
        self._denials = Rate(limits.denials_per_s)
        self._all_denials = Rate(limits.denials_per_s * _STRANGERS)
        self._unrecorded_words = Rate(1)
        self._health = system.Health(guards)

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        """Answer one request (ASGI)."""
        try:
            reply = await self._answer(_request(scope, receive))
        except Gone:
            return
        except Exception as error:  # noqa: BLE001 - its words may quote what was sent
            reply = _fault(error)
        await send_reply(reply, send)

    def tidy(self) -> None:
        """See Served. Raises AuditError."""
        self.audit.reopen_if_rotated()

    async def _answer(self, request: Request) -> Reply:
        match request.segments:
            case (mount, operation, key) if operation in transit.OPERATIONS or operation == "keys":
                return await self._authenticated(request, Asked(operation, mount, key))
            case ("auth", "token", ("renew-self" | "lookup-self") as operation):
                return await self._authenticated(request, Asked(operation))
            case ("sys", ("health" | "seal-status" | "leader") as what):
                return self._system(request, what)
            case ("metrics",):
                return Reply(200, self.metrics.text(), CONTENT_TYPE)
            case _:
                return Refusal(404, ("no handler for this route",)).reply()

    def _system(self, request: Request, what: str) -> Reply:
        if request.method not in _READS:
            return Refusal(405, ("unsupported operation",)).reply()
        if what == "health":
            return self._health.reply(request.query, in_words=is_loopback(request.peer.address))
        return system.seal_status(self._guards) if what == "seal-status" else system.leader()

    async def _authenticated(self, request: Request, asked: Asked) -> Reply:
        """Answer a client. Every verdict is on record before the answer leaves."""
        caller: Caller | None = None
        try:
            caller = self._admit(request)
            _refuse_method(request, asked.operation)
            if asked.operation in ("renew-self", "lookup-self"):
                return self._login(request, asked, caller)
            guard = transit.resolve(self._guards, caller, asked.keyring, asked.key)
            if guard.name != asked.keyring:
                asked = replace(asked, keyring=guard.name)
            outcome = await self._use(request, asked, caller, guard)
            self._record(request, caller, asked, outcome.what, "released", outcome.version)
            if outcome.what == "unseal":
                self._count_unseal(Waiter(guard.name, asked.key, caller.name))
            return outcome.reply
        except Refusal as refusal:
            return self._refused(request, caller, asked, refusal)
        except KeyringKeyError as error:
            bad = Refusal(400, (error.seen, error.means), type(error).__name__)
            return self._refused(request, caller, asked, bad)
        except Locked as error:
            return self._refused(request, caller, asked, Refusal(503, (error.seen,), "locked"))
        except AuditError as error:
            return self._unrecorded(error)

    def _admit(self, request: Request) -> Caller:
        caller = self._directory.authenticate(request.token, request.peer, time.time())
        if not self._requests.allows(caller.name, time.monotonic()):
            raise Refusal(429, ("too many requests",), "rate", retry_after(1))
        if request.namespace not in (b"", b"root", b"root/"):
            raise Refusal(404, ("there are no namespaces here",), "namespace")
        return caller

    def _login(self, request: Request, asked: Asked, caller: Caller) -> Reply:
        now = datetime.now(UTC)
        self._record(request, caller, asked, "token", "released")
        if asked.operation == "renew-self":
            return login.renew(caller, request.token.decode("ascii"), now)
        return login.look_up(caller, now)

    async def _use(
        self, request: Request, asked: Asked, caller: Caller, guard: Guard
    ) -> transit.Outcome:
        if asked.operation == "keys":
            return transit.read(guard, asked.key)

        def recheck() -> None:
            again = self._directory.authenticate(request.token, request.peer, time.time())
            transit.resolve(self._guards, again, guard.name, asked.key)

        document = guard.document
        body = await request.body(self.limits.body_bytes)
        if guard.document is not document:
            recheck()  # revoked, perhaps, while the body came
        if held := asked.operation == "decrypt" and not guard.is_open:
            self._record(request, caller, asked, "held until open", "waits")
        work = transit.use(asked.operation, request, guard, asked.key, self.hold, body, recheck)
        if held:
            return await self._waiting(Waiter(guard.name, asked.key, caller.name), work)
        return await work

    async def _waiting(
        self, who: Waiter, work: Coroutine[Any, Any, transit.Outcome]
    ) -> transit.Outcome:
        self._waits.begins(who, time.monotonic())
        try:
            return await work
        finally:
            self._waits.pauses(who, time.monotonic())

    def _count_unseal(self, who: Waiter) -> None:
        self.metrics.unseals[who] += 1
        waited_s = self._waits.ends(who, time.monotonic())
        if waited_s is not None:
            self.metrics.waited.add((who.keyring,), waited_s)

    def _refused(
        self, request: Request, caller: Caller | None, asked: Asked, refusal: Refusal
    ) -> Reply:
        if refusal.status == 403:
            self.metrics.denials += 1
            if not self._worth_a_record(request.peer):
                # Not on record: a flood must not fill the disk. The metric counts it.
                return Refusal(429, ("too many denied requests",), "", retry_after(2)).reply()
        verdict = "denied" if refusal.status == 403 else "refused"
        try:
            self._record(request, caller, asked, refusal.reason, verdict)
        except AuditError as error:
            return self._unrecorded(error)
        return refusal.reply()

    def _unrecorded(self, error: AuditError) -> Reply:
        """The answer when nothing can be put on record. The log says where, once a second."""
        if self._unrecorded_words.allows("", time.monotonic()):
            _say("audit", seen=error.seen, next=error.next_step)
        return Refusal(500, ("the audit log can't be written", error.means)).reply()

    def _worth_a_record(self, stranger: Peer) -> bool:
        now_s = time.monotonic()
        one = self._denials.allows(stranger.block(), now_s)
        return one and self._all_denials.allows("", now_s)

    def _record(
        self,
        request: Request,
        caller: Caller | None,
        asked: Asked,
        what: str,
        verdict: str,
        version: int = 0,
    ) -> None:
        fields = members(
            client=caller.name if caller else "",
            source=request.peer.address,
            operation=asked.operation,
            keyring=asked.keyring[:_MAX_NAME_CHARS],
            key=asked.key[:_MAX_NAME_CHARS],
            version=str(version) if version else "",
            what=what,
            verdict=verdict,
        )
        self.audit.record(fields)
        purpose = what if verdict in ("released", "waits") else ""
        self.metrics.requests[asked.operation, purpose, verdict] += 1


def _refuse_method(request: Request, operation: str) -> None:
    if request.method not in _METHODS.get(operation, _WRITES):
        raise Refusal(405, ("unsupported operation",), "method")


def _fault(error: Exception) -> Reply:
    """The answer to what nobody foresaw. Where it happened is logged, and not its words."""
    place, traceback = "", error.__traceback__
    while traceback is not None:
        place = f"{traceback.tb_frame.f_code.co_qualname}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    _say("fault", error=type(error).__name__, at=place)
    return Refusal(500, ("internal error",)).reply()


def _say(event: str, **fields: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the log, too, may be on a full disk
        telemetry.logger().error(event, **fields)


def _request(scope: Any, receive: Receive) -> Request:
    token = namespace = b""
    for name, value in scope["headers"]:
        if name == b"x-vault-token":
            token = value
        elif name == b"x-vault-namespace":
            namespace = value
        elif name == b"authorization" and not token and value[:7].lower() == b"bearer ":
            token = value[7:].strip()
    # As it was sent: no name needs an escape, and an escaped slash must not become a real one.
    path: str = scope["raw_path"].decode("ascii")
    segments = tuple(path[4:].split("/")) if path.startswith("/v1/") else (path.strip("/"),)
    peer: Peer = scope["state"]["peer"]
    query = scope["query_string"].decode("latin-1")
    return Request(scope["method"], segments, query, token, namespace, peer, receive)

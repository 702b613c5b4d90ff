"""The HTTP face of the double: who asks, what is asked, and the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from tests.support.kubernetes import reading, refusals
from tests.support.kubernetes.faults import Asked, Fault
from tests.support.kubernetes.kinds import Object
from tests.support.kubernetes.refusals import Refusal, bad_request
from tests.support.kubernetes.routes import Route, route
from tests.support.kubernetes.storage import Storage
from tests.support.kubernetes.watches import Watches

MERGE_PATCH = "application/merge-patch+json"


class Api:
    """Answers requests. ``tokens`` are valid until their time (``time.time``); None: for ever."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.watches = Watches(storage)
        self.tokens: dict[str, float | None] = {}
        self.faults: list[Fault] = []
        self.requests: list[Asked] = []
        self.latency_s = 0.0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        asked = await _asked(request)
        self.requests.append(asked)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        try:
            fault = next((one for one in self.faults if one.strikes(asked)), None)
            if fault is not None and (wrong := await _do_wrong(fault, request)) is not None:
                return wrong
            self._check(request, asked)
            found = route(self.storage, asked.path)
            if asked.watch and asked.method == "GET":
                return await self.watches.serve(request, _collection(found, asked))
            code, body = self._act(found, asked)
        except Refusal as refusal:
            return web.json_response(refusal.status(), status=refusal.code)
        return web.json_response(body, status=code)

    def _check(self, request: web.Request, asked: Asked) -> None:
        """A known token, or a certificate that the handshake has verified."""
        transport = request.transport
        if transport is not None and transport.get_extra_info("peercert"):
            return
        until = self.tokens.get(asked.bearer, 0.0)
        if until is not None and until < time.time():
            raise refusals.unauthorized()

    def _act(self, at: Route, asked: Asked) -> tuple[int, Object]:
        storage = self.storage
        if at.subresource == "token":
            return 201, self._token(at, asked)
        if not at.name:
            if asked.method == "GET":
                return 200, reading.page(storage, at, asked.query)
            if asked.method == "POST":
                return 201, storage.create(at.kind, at.namespace, _body(asked))
            raise _not_allowed()
        match asked.method:
            case "GET":
                return 200, storage.get(at.kind, at.namespace, at.name)
            case "PUT":
                body = _body(asked)
                return 200, storage.replace(at.kind, at.namespace, at.name, body, at.subresource)
            case "PATCH":
                if asked.content_type != MERGE_PATCH:
                    raise Refusal(415, "UnsupportedMediaType", f"only {MERGE_PATCH} is accepted")
                body = _body(asked)
                return 200, storage.patch(at.kind, at.namespace, at.name, body, at.subresource)
            case "DELETE":
                return 200, self._delete(at, asked)
        raise _not_allowed()

    def _delete(self, at: Route, asked: Asked) -> Object:
        preconditions = (_body(asked) if asked.body else {}).get("preconditions")
        gone = self.storage.delete(at.kind, at.namespace, at.name, preconditions)
        details = {"name": at.name, "kind": at.kind.plural, "uid": gone["metadata"]["uid"]}
        if at.kind.group:
            details["group"] = at.kind.group
        if gone["metadata"].get("deletionTimestamp"):
            return gone
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }

    def _token(self, at: Route, asked: Asked) -> Object:
        """TokenRequest: a token of a service account that this API then accepts."""
        if asked.method != "POST":
            raise _not_allowed()
        account = self.storage.get(at.kind, at.namespace, at.name)
        spec = _body(asked).get("spec") or {}
        lives_s = int(spec.get("expirationSeconds") or 3600)
        if lives_s < 600:
            why = "may not specify a duration less than 10 minutes"
            raise refusals.invalid(at.kind, at.name, f"spec.expirationSeconds: {why}")
        token = secrets.token_urlsafe(32)
        self.tokens[token] = time.time() + lives_s
        ends = datetime.now(UTC) + timedelta(seconds=lives_s)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": account["metadata"]["name"], "namespace": at.namespace},
            "spec": {"audiences": spec.get("audiences") or [], "expirationSeconds": lives_s},
            "status": {"token": token, "expirationTimestamp": f"{ends:%Y-%m-%dT%H:%M:%SZ}"},
        }


async def _asked(request: web.Request) -> Asked:
    body = await request.read()
    parsed: Any = None
    with contextlib.suppress(ValueError):
        parsed = json.loads(body) if body else None
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return Asked(
        request.method,
        request.rel_url.raw_path,
        dict(request.query),
        request.content_type,
        token if scheme == "Bearer" else "",
        body,
        parsed if isinstance(parsed, dict) else None,
    )


async def _do_wrong(fault: Fault, request: web.Request) -> web.StreamResponse | None:
    if fault.action is not None:
        fault.action()
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.hang:
        await asyncio.Event().wait()  # until the client gives up, or the double ends
    if fault.cut and request.transport is not None:
        request.transport.abort()
        return web.Response()
    if fault.body is not None:
        return web.Response(body=fault.body, status=fault.status or 200)
    if fault.status:
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        said = Refusal(fault.status, fault.reason, "a fault of the test").status()
        return web.json_response(said, status=fault.status, headers=headers)
    return None


def _collection(found: Route, asked: Asked) -> Route:
    if found.name:
        raise bad_request(f"a watch is of a collection, not of {asked.path}")
    return found


def _body(asked: Asked) -> Object:
    if asked.json is None:
        raise bad_request("the body of the request is not a JSON object")
    return asked.json


def _not_allowed() -> Refusal:
    return Refusal(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )

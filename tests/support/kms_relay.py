"""Between an anchor and a real moto: passes everything on, and does on command what moto can't.

with Relay(aws.endpoint) as relay:
    relay.now["Decrypt"] = Says("ThrottlingException")    # DescribeKey still goes to moto
    relay.now["Decrypt"] = Hangs()
    relay.script["Decrypt"] = [Cuts(), Passes()]          # one behaviour a call, then ``now``
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from tests.support.tls import Issued

CHUNK: Final = bytes(1 << 16)
ANY: Final = "*"
WORDS: Final = "the words of AWS"
"""The message of every error; nobody should ever see it."""


@dataclass(frozen=True)
class Passes:
    """Passed on to moto, after a while."""

    after_s: float = 0.0


@dataclass(frozen=True)
class Says:
    """AWS's way to say no: an error code."""

    code: str
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """These very bytes."""

    body: bytes
    status: int = 200
    type: str = "application/x-amz-json-1.1"


@dataclass(frozen=True)
class Hangs:
    """Takes the request, and never answers."""


@dataclass(frozen=True)
class Cuts:
    """Ends the connection instead of an answer, or in the middle of one."""

    in_the_middle: bool = False


@dataclass(frozen=True)
class Floods:
    """Answers without an end."""


Behaviour = Passes | Says | Answers | Hangs | Cuts | Floods


@dataclass(frozen=True)
class Asked:
    """One request."""

    operation: str
    parameters: Mapping[str, Any]


class Relay:
    """The relay; with ``tls`` it speaks HTTPS. ``asked`` is what came, in order."""

    def __init__(self, upstream: str, tls: Issued | None = None) -> None:
        self.now: dict[str, Behaviour] = {}
        self.script: dict[str, list[Behaviour]] = {}
        self.asked: list[Asked] = []
        self._upstream = urlsplit(upstream).netloc
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def operations(self) -> list[str]:
        """The names of what was asked."""
        return [asked.operation for asked in self.asked]

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Do with a request what is commanded for its operation."""
        operation = request.headers.get("X-Amz-Target", ANY).rpartition(".")[2]
        with contextlib.suppress(ValueError):
            self.asked.append(Asked(operation, json.loads(body)))
        script = self.script.get(operation, [])
        default = self.now.get(operation, self.now.get(ANY, Passes()))
        self._behave(request, body, script.pop(0) if script else default)

    def _behave(self, request: BaseHTTPRequestHandler, body: bytes, behaviour: Behaviour) -> None:
        match behaviour:
            case Passes(after_s):
                time.sleep(after_s)
                self._pass_on(request, body)
            case Says(code, status, headers):
                said = json.dumps({"__type": code, "message": WORDS}).encode()
                _send(request, status, said, headers)
            case Answers(content, status, kind):
                _send(request, status, content, {"Content-Type": kind})
            case Hangs():
                self._ended.wait()
            case Cuts(in_the_middle):
                if in_the_middle:
                    _send(request, 200, b'{"Plain', {"Content-Length": "1000"})
            case Floods():
                self._flood(request)
        request.close_connection = True

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        connection = http.client.HTTPConnection(self._upstream, timeout=10)
        try:
            connection.request(request.command, request.path, body, dict(request.headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        kept = {k: v for k, v in answer.getheaders() if k.lower().startswith(("x-", "content-ty"))}
        _send(request, answer.status, content, kept)

    def _flood(self, request: BaseHTTPRequestHandler) -> None:
        _send(request, 200, b"", {"Content-Length": str(1 << 40)})
        while not self._ended.is_set():
            request.wfile.write(CHUNK)


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]
) -> None:
    all_headers = {"Content-Length": str(len(body)), "Connection": "close", **headers}
    request.send_response_only(status)
    for name, value in all_headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The anchor went away in the middle: what the tests make it do."""


def _handler(relay: Relay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            relay.answer(self, self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    return Handler

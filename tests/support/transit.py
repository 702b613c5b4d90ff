"""A stock OpenBao as a KMS for transit anchors: Transit, and every kind of login.

server = counterparts.of(transit_server)        # one for all tests of a session
room = server.room()                            # a key and a policy of its own
anchor = room.anchor(Token(source))             # or over TLS: room.anchor(auth, **server.tls())

with Relay(server.bao.address) as relay:        # does on command what OpenBao can't
    relay.now["transit/decrypt/"] = Hangs()
    anchor = room.anchor(auth, address=relay.address)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import ssl
import tempfile
import threading
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from kluis.anchors.sources import FileSource
from kluis.anchors.transit.anchor import TransitAnchor
from kluis.anchors.transit.auth import AppRole, Auth, Certificate, Jwt, Token
from kluis.errors import AnchorError
from tests.support.bao import Bao, free_port, static_seal
from tests.support.tls import Authority, Issued

AUDIENCE: Final = "bao"
API_AUDIENCE: Final = "https://kubernetes.default.svc"
LOGINS: Final = ("approle", "jwt", "kubernetes", "cert")


class KmsServer:
    """A running server with Transit and logins. Every test takes a room of its own."""

    def __init__(self, folder: Path, bao: Bao, tls: Tls, kubernetes: TokenReview) -> None:
        self.folder = folder
        self.bao = bao
        self.tls_files = tls
        self.kubernetes = kubernetes
        self.signer = JWK.generate(kty="EC", crv="P-256")
        self.root = ""

    def must(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """A call as root that has to succeed; its data, or else its login."""
        found = self.bao.must(method, path, body, self.root)
        data = found.get("data") or found.get("auth") or {}
        assert isinstance(data, dict)
        return data

    def room(self, key: bool = True) -> Room:
        """A new key, and a policy of the same name that allows what an anchor needs."""
        room = Room(self, f"k-{uuid.uuid4().hex[:12]}")
        room.allow()
        if key:
            room.make_key()
        return room

    def tls(self, *, client: Issued | None = None, strict: bool = False) -> dict[str, Any]:
        """The settings to come over TLS; ``strict``: where every client shows a certificate."""
        return {
            "address": self.tls_files.address(strict=strict),
            "ca": self.tls_files.authority.certificate,
            "certificate": client.certificate if client else None,
            "certificate_key": client.key if client else None,
        }

    def jwt(self, claims: Mapping[str, object], lives_s: int = 600) -> str:
        """A signed token as an identity provider gives it."""
        now = int(time.time())
        times = {"iat": now - 1000, "exp": now + lives_s}
        token = JWT({"alg": "ES256"}, {"aud": AUDIENCE, **times, **claims})
        token.make_signed_token(self.signer)
        return str(token.serialize())

    def service_account_jwt(self, account: str) -> str:
        """The token of a pod's service account, as Kubernetes projects it."""
        said = {"namespace": "vaults", "serviceaccount": {"name": account, "uid": account}}
        claims = {
            "iss": "kubernetes/serviceaccount",
            "aud": [API_AUDIENCE],
            "sub": f"system:serviceaccount:vaults:{account}",
            "kubernetes.io": said,
        }
        return self.jwt(claims)

    def enable_all(self) -> None:
        """Initialise it, and set up whatever rooms need."""
        self.root = self.bao.init().root_token
        self.must("POST", "sys/mounts/transit", {"type": "transit"})
        for kind in LOGINS:
            self.must("POST", f"sys/auth/{kind}", {"type": kind})
        public = self.signer.export_to_pem().decode()
        self.must("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [public]})
        config = {
            "kubernetes_host": self.kubernetes.address,
            "kubernetes_ca_cert": self.tls_files.authority.certificate.read_text(),
            "disable_local_ca_jwt": True,
        }
        self.must("POST", "auth/kubernetes/config", config)


@dataclass
class Room:
    """A key of a server, a policy of the same name, and ways to prove who one is."""

    server: KmsServer
    key: str
    anchors: list[TransitAnchor] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def anchor(self, auth: Auth, **settings: Any) -> TransitAnchor:
        """An anchor of this key; ``settings`` replace the ordinary ones."""
        ordinary = {
            "address": self.server.bao.address,
            "key": self.key,
            "mount": "transit",
            "namespace": None,
            "ca": None,
            "certificate": None,
            "certificate_key": None,
        }
        anchor = TransitAnchor("kms", **{**ordinary, **settings}, auth=auth)
        self.anchors.append(anchor)
        return anchor

    def secrets(self) -> list[str]:
        """Every credential that was issued here, and the tokens that anchors got for them."""
        leases = (anchor._tokens._lease for anchor in self.anchors)
        return self.issued + [lease.token for lease in leases if lease is not None]

    def source(self, text: str, name: str) -> FileSource:
        """A file of this room with a credential in it."""
        self.issued.append(text)
        path = self.server.folder / self.key / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text + "\n", "ascii")
        return FileSource(path)

    def error(self, call: Coroutine[None, None, object]) -> AnchorError:
        """The error that a call of an anchor has to end with."""
        with pytest.raises(AnchorError) as caught:
            asyncio.run(call)
        lines = (caught.value.seen, caught.value.means, caught.value.next_step)
        assert all(lines)
        assert "\n" not in "".join(lines)
        self.said += [*lines, repr(caught.value)]
        return caught.value

    def leaked(self, log: str) -> list[str]:
        """Credentials of this room in errors, notices or the log."""
        said = "\n".join([log, *self.said, *(repr(anchor.notice) for anchor in self.anchors)])
        return [secret for secret in self.secrets() if secret in said]

    # -- the key

    def make_key(self, **options: object) -> None:
        """Make the key; by default one that may be deleted."""
        self.server.must("POST", f"transit/keys/{self.key}", options)
        self.configure(deletion_allowed=True)

    def configure(self, **options: object) -> None:
        """Change the key's settings."""
        self.server.must("POST", f"transit/keys/{self.key}/config", options)

    def rotate(self) -> None:
        """Rotate the key."""
        self.server.must("POST", f"transit/keys/{self.key}/rotate")

    def delete_key(self) -> None:
        """Delete the key, for good."""
        self.server.must("DELETE", f"transit/keys/{self.key}")

    # -- what may be done

    def allow(self, *less: str, also: str = "") -> None:
        """Write the policy that docs/ANCHORS.md shows, without the lines of these operations."""
        lines = {
            "encrypt": f'path "transit/encrypt/{self.key}" {{ capabilities = ["update"] }}',
            "decrypt": f'path "transit/decrypt/{self.key}" {{ capabilities = ["update"] }}',
            "keys": f'path "transit/keys/{self.key}" {{ capabilities = ["read"] }}',
        }
        text = "\n".join([line for name, line in lines.items() if name not in less] + [also])
        self.server.must("PUT", f"sys/policies/acl/{self.key}", {"policy": text})

    # -- who one is

    def token(self, **options: object) -> str:
        """A new token with the policy; by default with a period."""
        wanted = {"policies": [self.key], **(options or {"period": "1h"})}
        return str(self.server.must("POST", "auth/token/create-orphan", wanted)["client_token"])

    def by_token(self, **options: object) -> Token:
        """A token in a file."""
        return Token(self.source(self.token(**options), "token"))

    def by_approle(self, secret_id: Mapping[str, object] | None = None, **role: object) -> AppRole:
        """An AppRole; a secret id with these bounds in a file."""
        path = f"auth/approle/role/{self.key}"
        self.server.must("POST", path, {"token_policies": [self.key], "token_ttl": "1h", **role})
        role_id = self.server.must("GET", f"{path}/role-id")["role_id"]
        return AppRole(str(role_id), self.source(self.secret_id(**(secret_id or {})), "secret-id"))

    def by_this_secret_id(self, secret_id: str) -> AppRole:
        """An AppRole with just this secret id."""
        auth = self.by_approle()
        path = f"auth/approle/role/{self.key}/custom-secret-id"
        self.server.must("POST", path, {"secret_id": secret_id})
        return AppRole(auth.role_id, self.source(secret_id, "secret-id"))

    def secret_id(self, **bounds: object) -> str:
        """A new secret id of the AppRole."""
        path = f"auth/approle/role/{self.key}/secret-id"
        return str(self.server.must("POST", path, bounds)["secret_id"])

    def by_jwt(self, jwt: str = "", **role: object) -> Jwt:
        """A role for JWTs whose subject is the key's name; a JWT in a file."""
        wanted = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_subject": self.key,
            "bound_audiences": [AUDIENCE],
            "token_policies": [self.key],
            "token_ttl": "1h",
            **role,
        }
        self.server.must("POST", f"auth/jwt/role/{self.key}", wanted)
        return Jwt(self.key, self.source(jwt or self.server.jwt({"sub": self.key}), "jwt"))

    def by_kubernetes(self, **role: object) -> Jwt:
        """A role for a service account of the key's name; its JWT in a file that others read."""
        wanted = {
            "bound_service_account_names": [self.key],
            "bound_service_account_namespaces": ["vaults"],
            "token_policies": [self.key],
            "token_ttl": "1h",
            "audience": "",
            **role,
        }
        self.server.must("POST", f"auth/kubernetes/role/{self.key}", wanted)
        source = self.source(self.server.service_account_jwt(self.key), "service-account")
        source.path.chmod(0o644)
        return Jwt(self.key, source.as_shared(), "kubernetes")

    def by_certificate(self, **role: object) -> Certificate:
        """A role for certificates of the key's name, which ``client`` issues."""
        wanted = {
            "certificate": self.server.tls_files.authority.certificate.read_text(),
            "allowed_common_names": [self.key],
            "token_policies": [self.key],
            "token_ttl": "1h",
            **role,
        }
        self.server.must("POST", f"auth/cert/certs/{self.key}", wanted)
        return Certificate(self.key)

    def client(self) -> Issued:
        """A client certificate of the key's name."""
        return self.server.tls_files.authority.issue(self.key)


def alone(bao: Bao, folder: Path, key: str) -> Room:
    """A room in a server that the test itself runs, and sets up by itself."""
    tls = Tls(folder / "tls")
    return Room(KmsServer(folder, bao, tls, TokenReview(tls.server)), key)


def delete_key_of(server: KmsServer, anchor: TransitAnchor) -> None:
    """Delete the key that an anchor uses, for good."""
    server.must("DELETE", f"transit/keys/{anchor._key}")


@contextlib.contextmanager
def transit_server() -> Iterator[KmsServer]:
    """A stock OpenBao with all this; it ends with the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seal.key").write_bytes(os.urandom(32))
        tls = Tls(folder / "tls")
        bao = Bao(folder / "bao", static_seal(folder / "seal.key"), more=tls.listeners())
        with TokenReview(tls.server) as kubernetes, bao:
            server = KmsServer(folder, bao, tls, kubernetes)
            server.enable_all()
            yield server


class Tls:
    """An authority, a server's certificate of it, and two more listeners that use them."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "ca")
        self.server = self.authority.issue("server", "localhost", "127.0.0.1")
        self.stranger = Authority(folder / "stranger", "another CA").issue("stranger")
        self._ports = free_port(), free_port()

    def address(self, *, strict: bool) -> str:
        """Where it listens; ``strict``: where every client has to show a certificate."""
        return f"https://127.0.0.1:{self._ports[strict]}"

    def listeners(self) -> str:
        """The configuration of the listeners."""
        return "".join(
            f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n'
            f'  cluster_address = "127.0.0.1:{free_port()}"\n'
            f'  tls_cert_file = "{self.server.certificate}"\n'
            f'  tls_key_file = "{self.server.key}"\n'
            f'  tls_client_ca_file = "{self.authority.certificate}"\n'
            f"  tls_require_and_verify_client_cert = {strict}\n}}\n"
            for strict, port in zip(("false", "true"), self._ports, strict=True)
        )


class Listening:
    """A small HTTP server in a thread, while it is entered. Subclasses answer."""

    def __init__(self, tls: Issued | None = None) -> None:
        self.ended = threading.Event()
        self._tls = tls

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._tls.certificate, self._tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        """As errors name it."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http{'s' if self._tls else ''}://{self.host}"

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer one request."""
        raise NotImplementedError


class TokenReview(Listening):
    """As much of a Kubernetes API server as a TokenReview takes: it knows every service account.

    While ``down``, it cuts every connection.
    """

    down = False

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.down:
            request.close_connection = True
            return
        spec = json.loads(body)["spec"]
        claims = json.loads(base64.urlsafe_b64decode(spec["token"].split(".")[1] + "=="))
        name = claims["sub"].rpartition(":")[2]
        status = {
            "authenticated": True,
            "audiences": spec.get("audiences", []),
            "user": {"username": claims["sub"], "uid": name},
        }
        said = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        send(request, 201, json.dumps(said).encode())


@dataclass(frozen=True)
class Says:
    """An answer of one's own."""

    status: int
    body: bytes = b'{"errors":["the words of the server"]}'
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hangs:
    """Takes the request, and never answers."""


@dataclass(frozen=True)
class Cuts:
    """Ends the connection instead of an answer."""


@dataclass(frozen=True)
class Slow:
    """Passes on, after a while."""

    seconds: float


Behaviour = Says | Hangs | Cuts | Slow


class Relay(Listening):
    """Passes requests on to a server, but those whose path begins with a name in ``now``.

    ``script`` has behaviours for one request each, which come before. ``asked`` are all paths,
    ``gets`` those that were only read.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.now: dict[str, Behaviour] = {}
        self.script: list[Behaviour] = []
        self.asked: list[str] = []
        self.gets: list[str] = []
        self._upstream = upstream.removeprefix("http://")

    def count(self, path: str) -> int:
        """How often a path was asked."""
        return self.asked.count(path)

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        path = request.path.removeprefix("/v1/")
        self.asked.append(path)
        if request.command == "GET":
            self.gets.append(path)
        fitting = (does for start, does in self.now.items() if path.startswith(start))
        self._behave(request, body, self.script.pop(0) if self.script else next(fitting, Slow(0)))

    def _behave(self, request: BaseHTTPRequestHandler, body: bytes, does: Behaviour) -> None:
        match does:
            case Says(status, content, headers):
                send(request, status, content, headers)
            case Hangs():
                self.ended.wait()
                request.close_connection = True
            case Cuts():
                request.close_connection = True
            case Slow(seconds):
                self.ended.wait(seconds)
                self._pass_on(request, body)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        with contextlib.closing(connection):
            connection.request(request.command, request.path, body, dict(request.headers))
            answer = connection.getresponse()
            send(request, answer.status, answer.read())


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send an answer as JSON, unless the headers say otherwise."""
    length = {} if status in (204, 304) else {"Content-Length": str(len(body))}
    request.send_response_only(status)
    for name, value in {"Content-Type": "application/json", **length, **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side went away in the middle: what the tests make it do."""


def _handler(listening: Listening) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            listening.answer(self, self.rfile.read(length))

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    return Handler

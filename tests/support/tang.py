"""A real Tang server for tests, and something in between that changes what it answers.

    with Tang(tmp_path / "tang") as tang:             # listening, with fresh keys
        tang.rotate()
        tang.delete_rotated()
        with Between(tang.url) as between:            # passes everything on
            between.now = lambda request: Reply(503)  # but now

``tangd`` is Debian's; ``socat`` starts one for every connection, as systemd does elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.support.bao import free_port, wait_until

TANGD: Final = Path("/usr/libexec/tangd")
KEYGEN: Final = Path("/usr/libexec/tangd-keygen")
ROTATE: Final = Path("/usr/libexec/tangd-rotate-keys")
COMMAND_S: Final = 30.0
STARTS: Final = 5


class TangFailed(AssertionError):
    """The server did not do what the test waits for, or is not installed."""


class Tang:
    """A Tang server on a loopback port, with its keys in a folder."""

    def __init__(self, folder: Path) -> None:
        for program in (TANGD, KEYGEN, ROTATE, Path(shutil.which("socat") or "/usr/bin/socat")):
            if not os.access(program, os.X_OK):
                raise TangFailed(f"{program} is missing; install it: apt install tang socat")
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.generate()

    def __enter__(self) -> Tang:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen: on the same port as before, if there was one."""
        assert self._process is None, "it runs already"
        for _ in range(STARTS):
            port = self.port or free_port()
            process = subprocess.Popen(
                [
                    "socat",
                    f"TCP-LISTEN:{port},reuseaddr,fork,bind=127.0.0.1",
                    f"EXEC:{TANGD} {self.folder}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._process = process
            try:
                wait_until(lambda: process.poll() is not None or listens(port), "socat listens")  # noqa: B023 - of this turn
            except BaseException:
                self.stop()
                raise
            if process.poll() is None:
                self.port = port
                return
            self._process = None
        raise TangFailed("socat could not listen")

    def stop(self) -> None:
        """End it, and whatever it is just answering."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It accepts connections, and does nothing any more."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def generate(self) -> None:
        """Another signing key and another exchange key, beside those there are."""
        run(KEYGEN, self.folder)

    def rotate(self) -> None:
        """New keys; the old ones still answer, and are no longer advertised."""
        run(ROTATE, "-d", self.folder)

    def rotate_exchange_key(self) -> None:
        """A new exchange key; the signing key stays."""
        for path in self.keys("ECMR"):
            path.rename(path.with_name(f".{path.name}"))
        self._jose_key('{"alg":"ECMR"}', "exchange.jwk")

    def delete_rotated(self) -> None:
        """The files of keys that are no longer advertised are gone."""
        for path in self.folder.glob(".*.jwk"):
            path.unlink()

    def delete_exchange_keys(self) -> None:
        """No exchange key is left."""
        for path in self.keys("ECMR"):
            path.unlink()

    def delete_all(self) -> None:
        """No key is left: tangd makes new ones when it is asked next."""
        self.delete_rotated()
        for path in self.folder.glob("*.jwk"):
            path.unlink()

    def fresh(self, *, curve: str = "P-521", signs: str = "ES512") -> None:
        """Other keys than ever before."""
        self.delete_all()
        self._jose_key(f'{{"alg":"ECMR","kty":"EC","crv":"{curve}"}}', "exchange.jwk")
        self._jose_key(f'{{"alg":"{signs}"}}', "signing.jwk")

    def keys(self, algorithm: str) -> list[Path]:
        """The files of the advertised keys of an algorithm."""
        wanted = f'"alg":"{algorithm}"'
        paths = sorted(self.folder.glob("[!.]*.jwk"))  # with a dot before it, it was rotated out
        return [path for path in paths if wanted in path.read_text().replace(" ", "")]

    def thumbprint(self, algorithm: str = "ES512") -> str:
        """The thumbprint of the advertised key of an algorithm, as jose computes it."""
        (path,) = self.keys(algorithm)
        return run("jose", "jwk", "thp", "-i", path, "-a", "S256")

    def _jose_key(self, template: str, name: str) -> None:
        run("jose", "jwk", "gen", "-i", template, "-o", self.folder / name)


@contextlib.contextmanager
def shared_tang() -> Iterator[Tang]:
    """A server for many tests; each begins with ``fresh``."""
    with tempfile.TemporaryDirectory() as folder, Tang(Path(folder) / "tang") as tang:
        yield tang


def run(*command: str | Path) -> str:
    """What a command prints."""
    arguments: Sequence[str] = [str(part) for part in command]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=COMMAND_S)
    if done.returncode != 0:
        raise TangFailed(f"{arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What it got. ``chunks`` may take its time."""

    status: int
    body: bytes = b""
    location: str = ""
    retry_after: str = ""
    chunks: Iterator[bytes] | None = None


class Between:
    """Passes requests on to a server, keeps them, and answers itself as ``now`` says."""

    def __init__(self, url: str) -> None:
        self.asked: list[Request] = []
        self.now: Callable[[Request], Reply] = self.passed_on
        self._to = url.removeprefix("http://")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Between:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def passed_on(self, request: Request) -> Reply:
        """What the server itself answers."""
        connection = http.client.HTTPConnection(self._to, timeout=COMMAND_S)
        try:
            connection.request(request.method, request.path, request.body or None)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read())
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        between = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                request = Request(self.command, self.path, self.rfile.read(length))
                between.asked.append(request)
                reply = between.now(request)
                with contextlib.suppress(OSError):  # the client gave up
                    self._send(reply)

            do_POST = do_GET  # noqa: N815

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in (
                    ("Location", reply.location),
                    ("Retry-After", reply.retry_after),
                ):
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
                for chunk in reply.chunks or ():
                    self.wfile.write(chunk)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - so it is called
                return

        return Handler

"""The double as a test uses it: a server in a thread, and the cluster behind it."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.kubernetes.api import Api
from tests.support.kubernetes.controllers import Callback, Controllers
from tests.support.kubernetes.faults import Asked, Fault
from tests.support.kubernetes.kinds import Kind, Object
from tests.support.kubernetes.refusals import Refusal
from tests.support.kubernetes.storage import Change, Storage
from tests.support.tls import Authority

START_S = 30.0


class KubernetesDouble:
    """A cluster's API on a loopback port, over TLS unless told otherwise.

    Its methods are for the test's own thread and for controllers; they act as an administrator
    does, and are not in ``requests``. A missing object is a KeyError.
    """

    def __init__(self, folder: Path, *, tls: bool = True) -> None:
        self.folder = folder
        self.authority = Authority(folder / "pki", "cluster CA") if tls else None
        self.token = secrets.token_urlsafe(32)
        self.port = 0
        self._storage = Storage()
        self._api = Api(self._storage)
        self._api.tokens[self.token] = None
        self._controllers = Controllers(self._storage)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubernetes", daemon=True)
        self._storage.listeners.append(self._changed)

    # -- the server

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(START_S), "the double did not start"
        self._controllers.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._controllers.stop()
        self.cut_watches()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the double did not end"
        if error is None and self._controllers.errors:
            raise AssertionError("a controller failed") from self._controllers.errors[0]

    @property
    def address(self) -> str:
        """``https://127.0.0.1:PORT``."""
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._listen())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        hanging = asyncio.all_tasks(self._loop)  # by a fault, with nobody left to answer
        for task in hanging:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*hanging, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _listen(self) -> web.AppRunner:
        application = web.Application(client_max_size=8 << 20)
        application.router.add_route("*", "/{path:.*}", self._api.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls())
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    def _tls(self) -> ssl.SSLContext | None:
        if self.authority is None:
            return None
        issued = self.authority.issue("kube-apiserver", "127.0.0.1", "kubernetes.default.svc")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        context.load_verify_locations(self.authority.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL  # a certificate of its clients will do as well
        return context

    def _changed(self, change: Change) -> None:
        self._soon(self._api.watches.wake)

    def _soon(self, action: Callable[[], None]) -> None:
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)

    def reset(self) -> None:
        """Forget objects, controllers, faults and requests, and end the watches; keep the kinds.

        The version goes on to rise.
        """
        self._controllers.forget()
        deadline = time.monotonic() + START_S
        while self.watching and time.monotonic() < deadline:
            self.cut_watches()
            time.sleep(0.002)
        self._storage.clear()
        self._api.faults.clear()
        self._api.requests.clear()
        self._api.latency_s = 0.0

    # -- who may ask

    def kubeconfig(self, name: str = "kubeconfig", **user: str) -> Path:
        """A kubeconfig of this cluster; with its token, or with ``user`` as the user says."""
        cluster: Object = {"server": self.address}
        if self.authority is not None:
            cluster["certificate-authority"] = str(self.authority.certificate)
        said: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "clusters": [{"name": "double", "cluster": cluster}],
            "users": [{"name": "kluis", "user": user or {"token": self.token}}],
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "kluis"}}],
        }
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(json.dumps(said))  # which is YAML, too
        return path

    def account(self, folder: Path) -> Path:
        """What the kubelet gives a pod: token, ca.crt and namespace in a folder."""
        folder.mkdir(parents=True)
        (folder / "token").write_text(self.token)
        (folder / "namespace").write_text("vault")
        if self.authority is not None:
            (folder / "ca.crt").write_bytes(self.authority.certificate.read_bytes())
        return folder

    def rotate_token(self) -> str:
        """A new token; the old one is no longer valid."""
        self._api.tokens.pop(self.token)
        self.token = secrets.token_urlsafe(32)
        self._api.tokens[self.token] = None
        return self.token

    # -- objects

    def define(self, kind: Kind) -> None:
        """Serve one more kind, as after its CRD was made."""
        self._storage.define(kind)

    def create(self, key: str, item: Object) -> Object:
        """Make an object with the status that it says, if it says one."""
        kind = self._storage.kind(key)
        namespace = str(item["metadata"].get("namespace", ""))
        made = self._storage.create(kind, namespace, item)
        if kind.status and "status" in item:
            return self.set_status(key, made["metadata"]["name"], item["status"], namespace)
        return made

    def get(self, key: str, name: str, namespace: str = "") -> Object:
        """One object."""
        with _missing(name):
            return self._storage.get(self._storage.kind(key), namespace, name)

    def objects(self, key: str, namespace: str = "") -> Sequence[Object]:
        """All objects of a kind."""
        return self._storage.all(self._storage.kind(key), namespace)

    def patch(self, key: str, name: str, body: Object, namespace: str = "") -> Object:
        """Merge into an object."""
        with _missing(name):
            return self._storage.patch(self._storage.kind(key), namespace, name, body)

    def set_status(self, key: str, name: str, status: Object, namespace: str = "") -> Object:
        """Put a whole new status in place of the old one."""
        kind = self._storage.kind(key)
        with self._storage.lock, _missing(name):
            item = self._storage.get(kind, namespace, name) | {"status": status}
            return self._storage.replace(kind, namespace, name, item, "status")

    def delete(self, key: str, name: str, namespace: str = "") -> None:
        """Remove an object."""
        with _missing(name):
            self._storage.delete(self._storage.kind(key), namespace, name)

    @property
    def version(self) -> str:
        """The present resource version."""
        return str(self._storage.version)

    # -- controllers

    def on_change(self, key: str, callback: Callback) -> None:
        """Call for each change of a kind, in the controllers' thread; see Controllers."""
        self._controllers.on_change(key, callback)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something in the controllers' thread, after a time."""
        self._controllers.later(delay_s, action)

    def settle(self) -> None:
        """Return when the controllers have nothing left to do."""
        self._controllers.settle()

    # -- faults, and what was asked

    def fault(self, **said: Any) -> Fault:
        """Do something wrong from now on; see Fault."""
        fault = Fault(**said)
        self._api.faults.insert(0, fault)
        return fault

    def slow_down(self, latency_s: float) -> None:
        """Let every answer take so much longer."""
        self._api.latency_s = latency_s

    def compact(self) -> None:
        """Forget the history: earlier versions, and pages begun before, are answered by 410."""
        self._storage.compact()

    def close_watches(self) -> None:
        """End all watches as the API does after their time."""
        self._soon(lambda: self._api.watches.end("close"))

    def cut_watches(self) -> None:
        """End all watches as a broken network does."""
        self._soon(lambda: self._api.watches.end("cut"))

    def bookmark(self) -> None:
        """Send a bookmark to all watches that want them."""
        self._soon(self._api.watches.bookmark)

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._api.watches.open)

    @property
    def requests(self) -> Sequence[Asked]:
        """What was asked, in order."""
        return tuple(self._api.requests)

    def asked(self, method: str, path: str = "", *, watch: bool = False) -> Sequence[Asked]:
        """Those requests of a method that have ``path`` within their path."""
        return [
            one
            for one in self.requests
            if one.method == method and path in one.path and one.watch is watch
        ]


@contextmanager
def _missing(name: str) -> Iterator[None]:
    """A missing object is a KeyError, as in a dictionary."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code != 404:
            raise
        raise KeyError(name) from refusal

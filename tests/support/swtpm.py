"""A real TPM 2.0 in software for tests (swtpm, libtpms), and the bus to it, for eavesdroppers.

    with Swtpm(tmp_path) as tpm:             # started and answering
        anchor = Tpm2Anchor("tpm", device=tpm.device)
        tpm.extend(7)                        # what a boot of something else does
        tpm.reboot()

Nothing here sleeps to synchronise: every wait polls until its deadline, and ends at once when the
process died.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

os.environ["TSS2_LOG"] = "all+none"

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_SU,
    TPM2B_SENSITIVE_CREATE,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMT_HA,
    TPMU_HA,
    TSS2_Exception,
)

from tests.support.bao import free_port

POLL_S: Final = 0.005
DEADLINE_S: Final = 20.0
TRANSIENT: Final = 0x80000000
LOADED_SESSION: Final = 0x02000000
SAVED_SESSION: Final = 0x03000000

_running: set[subprocess.Popen[bytes]] = set()


@atexit.register
def _kill_leftovers() -> None:
    for process in list(_running):
        process.kill()


class SwtpmFailed(AssertionError):
    """The TPM did not do what the test waits for."""


def two_ports() -> int:
    """A free loopback port whose successor is free too: the TCTI takes that for its control."""
    port, following = free_port(), free_port()
    while following != port + 1:
        port, following = following, free_port()
    return port


class Swtpm:
    """One TPM and its state in a directory. ``with`` or ``start`` runs it."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "tpm"
        self._state.mkdir(parents=True, exist_ok=True)
        self._log = folder / "tpm.log"
        self.port = two_ports()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def device(self) -> str:
        """Its TCTI string."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    # -- the process

    def start(self) -> None:
        """Start it where it does not run, and wait until it answers."""
        if self._process is not None:
            return
        program = shutil.which("swtpm")
        if program is None:
            raise SwtpmFailed("swtpm is missing; install it with: apt install swtpm")
        command = [program, "socket", "--tpm2", "--tpmstate", f"dir={self._state}"]
        command += ["--server", f"type=tcp,port={self.port},disconnect"]
        command += ["--ctrl", f"type=tcp,port={self.port + 1}"]
        command += ["--flags", "not-need-init,startup-clear"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        _running.add(self._process)
        self._wait_answering()

    def _wait_answering(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SwtpmFailed(f"swtpm ended:\n{self._log.read_text(errors='replace')}")
            with contextlib.suppress(TSS2_Exception), self.talk():
                return
            time.sleep(POLL_S)
        raise SwtpmFailed("swtpm does not answer")

    def stop(self) -> None:
        """End it at once, as the power does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)
            _running.discard(self._process)
            self._process = None

    def reboot(self) -> None:
        """A reset as a machine that shuts down in order makes one; PCRs begin anew."""
        with self.talk() as esapi:
            esapi.shutdown(TPM2_SU.CLEAR)
        self.cut_power()

    def cut_power(self) -> None:
        """A reset that the TPM was not told of."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It goes on listening, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def thaw_if_running(self) -> None:
        """So that what it holds up can end."""
        if self._process is not None:
            self.thaw()

    def __enter__(self) -> Swtpm:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- what others do with it

    @contextmanager
    def talk(self) -> Iterator[Any]:
        """A connection of a program that is not kluis."""
        with ESAPI(self.device) as esapi:
            esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, 0x100, 1)
            yield esapi

    def extend(self, pcr: int, bank: str = "sha256", data: bytes = b"\x01") -> None:
        """Measure something into a PCR."""
        digest = data.ljust(DIGEST_BYTES[bank], b"\0")
        value = TPMT_HA(hashAlg=TPM2_ALG.parse(bank), digest=TPMU_HA(**{bank: digest}))
        with self.talk() as esapi:
            esapi.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES([value]))

    def clear(self) -> None:
        """What the firmware's menu calls clearing: a new seed, all passwords gone."""
        with self.talk() as esapi:
            esapi.clear(ESYS_TR.PLATFORM)

    def set_owner_password(self, password: str) -> None:
        """Set the owner hierarchy's password."""
        with self.talk() as esapi:
            esapi.hierarchy_change_auth(ESYS_TR.OWNER, password)

    def switch_owner_off(self) -> None:
        """Disable the owner hierarchy, as firmware may."""
        with self.talk() as esapi:
            esapi.hierarchy_control(ESYS_TR.PLATFORM, ESYS_TR.RH_OWNER, False)

    def lock_after(self, tries: int, forgives_after_s: int) -> None:
        """Set the protection against guessing, and forgive what was counted."""
        with self.talk() as esapi:
            esapi.dictionary_attack_lock_reset()
        self.lock_after_keeping_count(tries, forgives_after_s)

    def lock_after_keeping_count(self, tries: int, forgives_after_s: int) -> None:
        """Set the protection against guessing."""
        with self.talk() as esapi:
            esapi.dictionary_attack_parameters(tries, forgives_after_s, forgives_after_s)

    def only_bank(self, bank: str) -> None:
        """Leave one PCR bank allocated, and start anew."""
        banks = (
            struct.pack(">HB", TPM2_ALG.parse(name), 3) + (b"\xff" if name == bank else b"\0") * 3
            for name in DIGEST_BYTES
        )
        raw = struct.pack(">I", len(DIGEST_BYTES)) + b"".join(banks)
        picked, _ = TPML_PCR_SELECTION.unmarshal(raw)
        with self.talk() as esapi:
            esapi.pcr_allocate(picked)
        self.reboot()

    def litter(self) -> None:
        """Fill it with objects that nobody flushes."""
        with self.talk() as esapi, contextlib.suppress(TSS2_Exception):
            while True:
                esapi.create_primary(TPM2B_SENSITIVE_CREATE(), "ecc256:aes128cfb")

    def handles(self) -> dict[str, tuple[int, ...]]:
        """What is loaded now, by its kind."""
        kinds = {"objects": TRANSIENT, "sessions": LOADED_SESSION, "saved": SAVED_SESSION}
        with self.talk() as esapi:
            return {kind: _handles(esapi, first) for kind, first in kinds.items()}

    def wrong_tries(self) -> int:
        """How many wrong tries it counts."""
        with self.talk() as esapi:
            _, found = esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, 0x20E, 1)
            number, value = struct.unpack_from(">II", found.marshal(), 8)
        assert number == 0x20E
        return int(value)


@contextmanager
def shared_swtpm() -> Iterator[Swtpm]:
    """One for all tests of a session; they may stop it, and start it when they need it."""
    with tempfile.TemporaryDirectory() as folder, Swtpm(Path(folder)) as tpm:
        tpm.lock_after(1000, 600)  # power cuts count as wrong tries
        yield tpm


def _handles(esapi: ESAPI, first: int) -> tuple[int, ...]:
    _, found = esapi.get_capability(TPM2_CAP.HANDLES, first, 64)
    raw = found.marshal()[8:]
    handles = (handle for (handle,) in struct.iter_unpack(">I", raw))
    return tuple(handle for handle in handles if handle >> 24 == first >> 24)


DIGEST_BYTES: Final = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}


HEADER_BYTES: Final = 10
NO_SESSIONS: Final = 0x8001  # TPM_ST_NO_SESSIONS

Falsify = Callable[[int, bytes], bytes]


class Bus:
    """What lies between kluis and a TPM. It hears all, and shows what no healthy TPM does.

    ``refuse`` answers commands in the TPM's place; ``falsify`` is given the code of a command and
    the TPM's answer, and returns what shall arrive: when that is cut short, so is the connection.
    ``delay_s`` slows each command down.
    """

    def __init__(self, tpm: Swtpm) -> None:
        self.tpm = tpm
        self.heard: list[bytes] = []
        self.delay_s = 0.0
        self.falsify: Falsify = lambda command, answer: answer
        self._refusals: dict[int, list[int]] = {}
        self.port = two_ports()
        self._servers = (
            _Server(self.port, self._carry_commands),
            _Server(self.port + 1, self._carry_control),
        )

    @property
    def device(self) -> str:
        """The TCTI string of a TPM that is behind this bus."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def refuse(self, command: int, rc: int, times: int = 1) -> None:
        """Answer the next commands of this code with ``rc``."""
        self._refusals[int(command)] = [int(rc)] * times

    def heal(self) -> None:
        """Answer no more in the TPM's place."""
        self._refusals.clear()

    def commands(self) -> list[int]:
        """The codes of all commands that were heard."""
        return [code_of(packet) for packet in self.heard[::2]]

    def _carry_commands(self, client: socket.socket) -> None:
        while command := read_packet(client):
            time.sleep(self.delay_s)
            answer = self._answer(command)
            self.heard += [command, answer]
            client.sendall(answer)
            if len(answer) < HEADER_BYTES or len(answer) < size_of(answer):
                return

    def _answer(self, command: bytes) -> bytes:
        if refusals := self._refusals.get(code_of(command)):
            return struct.pack(">HII", NO_SESSIONS, HEADER_BYTES, refusals.pop())
        with socket.create_connection(("127.0.0.1", self.tpm.port)) as server:
            server.sendall(command)
            return self.falsify(code_of(command), read_packet(server))

    def _carry_control(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.tpm.port + 1)) as server:
            while request := client.recv(4096):
                server.sendall(request)
                client.sendall(server.recv(4096))

    def __enter__(self) -> Bus:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, port: int, carry: Callable[[socket.socket], None]) -> None:
        self._carry = carry
        super().__init__(("127.0.0.1", port), socketserver.BaseRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):  # either end may go at any time
            self._carry(request)


def code_of(packet: bytes) -> int:
    """The code of a command, or of an answer."""
    return int.from_bytes(packet[6:10], "big")


def size_of(packet: bytes) -> int:
    """The size that a command or an answer says it has."""
    return int.from_bytes(packet[2:6], "big")


def read_packet(connection: socket.socket) -> bytes:
    """One command or answer; empty at the end of the connection."""
    head = _exactly(connection, HEADER_BYTES)
    return head + _exactly(connection, size_of(head) - len(head))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data

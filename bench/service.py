"""``kluis serve`` for the benchmarks: made by ``kluis apply``, worked by the real commands."""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.certificates import Certificates
from bench.openbao import Access, OpenBao
from bench.polling import Health, moment_of
from bench.processes import BenchFailed, Program, clean_environment, free_port
from kluis.servers.tls import certificates, pin_of

KLUIS = str(Path(sys.executable).with_name("kluis"))
CONFIGURATION: Final = """
[anchors.disk]
kind = "static"
file = "anchor.key"

[anchors.family]
kind = "people"
threshold = 2
shares = 3

[keyrings.homelab]
store = {{ kind = "directory", path = "state" }}
opens = "disk or family"

[keyrings.homelab.keys.bletchley]
kind = "transit"

[facade]
listen = "127.0.0.1:{port}"
tls = {tls}
audit = "state/audit.jsonl"

[clients.bletchley]
keys = ["homelab/bletchley"]
"""


def _command(config: Path, *words: str, lines: str = "") -> str:
    done = subprocess.run(
        [KLUIS, *words, "--config", str(config)],
        input=lines,
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise BenchFailed(f"kluis {words[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


class Kluis:
    """One kluis with the keyring ``homelab``, opened by a file or by two of three people."""

    def __init__(self, folder: Path, tls: Certificates | None = None) -> None:
        """Declare it, and ``kluis apply``."""
        folder.mkdir(mode=0o700, parents=True)
        self._folder = folder
        self.config = folder / "kluis.toml"
        port = free_port()
        files = f'{{ certificate = "{tls.certificate}", key = "{tls.key}" }}' if tls else '"off"'
        self.config.write_text(CONFIGURATION.format(port=port, tls=files))
        key = folder / "anchor.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(32))
        ca_file = tls.ca if tls else None
        made = json.loads(self.command("apply", "--yes", "--output", "json"))
        self.shares: list[str] = made["shares"]["family"]
        address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.access = Access(address, "homelab", "bletchley", made["tokens"]["bletchley"], ca_file)
        self.health = Health(address, ca_file)
        self.program: Program | None = None

    @property
    def running(self) -> Program:
        """The started program."""
        assert self.program is not None, "kluis was not started"
        return self.program

    def serve(self) -> None:
        """Start ``kluis serve``, and wait until the keyring is open."""
        argv = [KLUIS, "serve", "--config", str(self.config)]
        self.program = Program(argv, self._folder / "kluis.log")
        moment_of(self.health, 200, self.running.check)

    def command(self, *words: str, lines: str = "") -> str:
        """Run a command of kluis; its output. Raises BenchFailed when it fails."""
        return _command(self.config, *words, lines=lines)

    def lock(self) -> None:
        """Lock the keyring by hand."""
        self.command("lock", "homelab")

    def unlock(self) -> None:
        """Enter two of the three paper shares, as two people would."""
        self.command("unlock", "homelab", lines="\n".join(self.shares[:2]) + "\n")

    def metric(self, name: str) -> float:
        """One metric without labels, as the facade tells it."""
        ca = self.access.ca_file
        context = ssl.create_default_context(cafile=ca) if ca else None
        with urllib.request.urlopen(
            f"{self.access.address}/metrics", timeout=60, context=context
        ) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[1])
        raise BenchFailed(f"kluis tells no metric {name}")


WATCH: Final = """
[anchors.disk]
kind = "static"
file = "anchor.key"

[keyrings.homelab]
store = {{ kind = "directory", path = "state" }}
opens = "disk"

[servers.vault]
addresses = ["{address}"]
ca = "{ca}"
pin = "{pin}"
threshold = 2
shares = 3
unseal = "homelab/vault"
"""
NEEDED: Final = ("--threshold", "2")
FLEET: Final = """
[servers.fleet-{number}]
addresses = ["{address}"]
server_name = "127.0.0.1"
ca = "{ca}"
pin = "{pin}"
threshold = 2
shares = 3
unseal = "homelab/vault"
"""


def watching(
    folder: Path,
    tls: Certificates,
    server: OpenBao,
    shares: Sequence[str],
    beside: Sequence[str] = (),
) -> Program:
    """``kluis watch`` of a server, by its shares, and of a fleet that has the same certificate."""
    folder.mkdir(mode=0o700, parents=True)
    config = folder / "kluis.toml"
    pin = pin_of(certificates(tls.certificate)[0])
    text = WATCH.format(address=server.address, ca=tls.ca, pin=pin)
    for number, address in enumerate(beside):
        text += FLEET.format(number=number, address=address, ca=tls.ca, pin=pin)
    config.write_text(text)
    key = folder / "anchor.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(32))
    _command(config, "apply", "--yes")
    lines = "\n".join(shares) + "\n"
    _command(config, "key", "import", "homelab/vault", "--shares", "-", *NEEDED, lines=lines)
    return Program([KLUIS, "watch", "--config", str(config)], folder / "kluis.log")

"""A stock Shamir server, and a house that keeps its shares and watches it.

with shamir(tmp_path / "bao", 3, 2) as server:       # initialised and unsealed
    house = watching_house(tmp_path / "house", server)
    with house.watch() as service:
        server.bao.kill9()
        server.bao.start()
        server.bao.wait_active()
"""

from __future__ import annotations

import contextlib
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.bao import Answer, Bao, Initialised, free_port
from tests.support.house import ANCHORS, KEYRING, House, Service
from tests.support.tls import Issued


@dataclass(frozen=True)
class Shamir:
    """A running server, and what its init gave."""

    bao: Bao
    made: Initialised
    threshold: int

    @property
    def cluster_id(self) -> str:
        """As it tells while it is unsealed."""
        return str(self.bao.must("GET", "sys/seal-status")["cluster_id"])

    def seal(self) -> None:
        """Seal it through its API, as a person does."""
        self.bao.must("PUT", "sys/seal", {}, self.made.root_token)

    def restart(self) -> None:
        """Kill it, and start it again: then it is sealed."""
        self.bao.kill9()
        self.bao.start()

    def unseal(self) -> None:
        """Enter the shares, and wait until it is active."""
        for share in self.made.shares[: self.threshold]:
            self.bao.unseal(share)
        self.bao.wait_active()


@contextlib.contextmanager
def shamir(
    folder: Path, shares: int = 3, threshold: int = 2, tls: Issued | None = None
) -> Iterator[Shamir]:
    """A new server with a Shamir seal, unsealed."""
    with Bao(folder, tls=tls) as bao:
        made = bao.init(shares, threshold)
        server = Shamir(bao, made, threshold)
        server.unseal()
        yield server


class WatchingHouse(House):
    """A house with ``[watch] listen`` at a port of its own, and ``more`` in its configuration."""

    def __init__(self, folder: Path, more: str = "", base: str = ANCHORS + KEYRING) -> None:
        self.watch_port = free_port()
        super().__init__(folder, f'{base}\n[watch]\nlisten = "127.0.0.1:{self.watch_port}"\n{more}')

    @classmethod
    def copy(cls, other: WatchingHouse, folder: Path) -> WatchingHouse:
        """The same, applied as it is, in another folder."""
        shutil.copytree(other.folder, folder)
        made = cls(folder)
        made.key.write_bytes(other.key.read_bytes())
        made.watch_port = other.watch_port  # in its configuration
        made.configure(other.file.read_text("utf-8"))
        return made

    def keep(self, name: str, server: Shamir) -> None:
        """Take the shares of a server into the keyring."""
        shares = "\n".join(server.made.shares)
        threshold = str(server.threshold)
        arguments = ("key", "import", f"homelab/{name}", "--shares", "-", "--threshold", threshold)
        self.json(*arguments, stdin=shares)

    @contextlib.contextmanager
    def watch(self, *arguments: str) -> Iterator[Service]:
        """``kluis watch``; ended with SIGTERM, unless the test ended it."""
        service = Service(self, ["watch", *arguments], {})
        try:
            service.wait_ready()
            yield service
        finally:
            service.end()

    def once(self, code: int) -> dict[str, Any]:
        """What ``kluis watch --once`` says; it has to end with ``code``."""
        return self.json("watch", "--once", code=code)

    def ask(self, path: str) -> Answer:
        """What ``[watch] listen`` answers."""
        return answer_of(f"http://127.0.0.1:{self.watch_port}/{path}")

    def watch_metrics(self) -> str:
        """What its ``/metrics`` says."""
        url = f"http://127.0.0.1:{self.watch_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text: str = answer.read().decode()
            return text


def answer_of(url: str) -> Answer:
    """A GET; its JSON."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return Answer(answer.status, json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, json.loads(error.read()))


def server_table(name: str, server: Shamir, *more: str) -> str:
    """``[servers.NAME]`` for it."""
    lines = [
        f"[servers.{name}]",
        f'addresses = ["{server.bao.address}"]',
        f'unseal = "homelab/{name}"',
        *more,
    ]
    return "\n".join(lines) + "\n"

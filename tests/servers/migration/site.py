"""A running kluis with several declared servers, and real OpenBao servers that move.

One kluis serves all tests of a file: each takes a server, a key and a client of its own. What a
person would do with the command line is done over the control socket here, which is quicker.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kluis.servers.migration import stanzas
from kluis.servers.migration.hcl import Stanza, seal_of
from kluis.service.asking import ask
from tests.support.applied import applied
from tests.support.bao import Bao, Initialised, free_port, static_seal, transit_seal
from tests.support.house import ANCHORS, FACADE, House, Service

KEYRING = """
[keyrings.homelab]
store = { kind = "directory", path = "state" }
opens = "disk or family"
"""


class Site:
    """A house with servers ``s0``, ``s1`` …, each with a transit key, a client and a port."""

    def __init__(self, folder: Path, servers: int) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(servers)]
        text = ANCHORS + KEYRING + FACADE
        for number, port in enumerate(self.ports):
            text += (
                f'\n[keyrings.homelab.keys.s{number}]\nkind = "transit"\n'
                f'[clients.s{number}]\nkeys = ["homelab/s{number}"]\n'
                f'[servers.s{number}]\naddresses = ["http://127.0.0.1:{port}"]\n'
                f'unseal = "homelab/of-s{number}"\n'
            )
        self.house = House(folder / "house", text)
        self.tokens: dict[str, str] = applied(self.house)["tokens"]
        self.service: Service | None = None

    @contextlib.contextmanager
    def serving(self) -> Iterator[Site]:
        """``kluis serve`` runs, until the end of the block."""
        try:
            self.start()
            yield self
        finally:
            if self.service is not None:
                self.service.end()

    def start(self) -> None:
        """Start kluis, and wait until its keyring is open."""
        self.service = Service(self.house, ["serve"], {})
        self.service.wait_ready()
        self.service.wait_logged('"event": "opened"')

    def crash(self) -> None:
        """Kill kluis, and start it again."""
        assert self.service is not None
        self.service.process.kill()
        self.service.process.wait()
        self.start()

    def ask(self, operation: str, **args: Any) -> dict[str, Any]:
        """One operation of the service."""
        return ask(self.house.control_path(), operation, args)


@dataclass
class Mover:
    """One server of a site, which moves."""

    site: Site
    name: str
    bao: Bao
    made: Initialised | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """Its root token."""
        assert self.made is not None
        return self.made.root_token

    @property
    def shares(self) -> tuple[str, ...]:
        """The two of its three shares that are enough."""
        assert self.made is not None
        return self.made.shares[:2]

    def set_up(self) -> None:
        """Initialise it, give kluis its shares, and write a secret."""
        self.bao.start()
        self.bao.wait_listening()
        self.made = self.bao.init(3, 2)
        if not self.bao.seal:
            for share in self.shares:
                self.bao.unseal(share)
            self.bao.wait_active()
        self.site.ask(
            "shares-import",
            key=f"homelab/of-{self.name}",
            shares="\n".join(self.made.shares),
            threshold=2,
            recovery=bool(self.bao.seal),
            replace=False,
        )
        self.bao.kv_put(self.token, "it", {"is": "here"})

    def facade(self) -> Stanza:
        """The stanza for kluis, as the command writes it."""
        address = f"http://127.0.0.1:{self.site.house.port}"
        token = self.site.tokens[self.name]
        return stanzas.facade(address, "homelab", self.name, self.name, token)

    def begin(self, to: str, new: Stanza | None, **more: Any) -> dict[str, Any]:
        """Plan and begin, as the command does, but for the snapshot."""
        asked = {
            "server": self.name,
            "to": to,
            "key": f"homelab/{self.name}" if to == "facade" else "",
            "client": "",
            "seal": "" if new is None else new.kind,
            **more,
        }
        found = self.site.ask("server-migrate-plan", **asked)
        repoint = found["way"] == "re-point"
        self.files = dict(stanzas.files(seal_of(self.bao.seal), new, repoint=repoint))
        asked["repoint"] = repoint
        self.site.ask("server-migrate-begin", **asked, snapshot="", folder="stanzas")
        return found

    def go_on(self, **more: Any) -> dict[str, Any]:
        """One more call; what it tells."""
        return self.site.ask("server-migrate", server=self.name, **more)

    def status(self) -> dict[str, Any]:
        """Where it stands, without a change."""
        return self.site.ask("server-migration", server=self.name)

    def back(self) -> None:
        """Turn round."""
        self.site.ask("server-migrate-back", server=self.name)

    def restart(self, told: dict[str, Any]) -> None:
        """Do what a person was told to do: restart it with the file that was named."""
        name = Path(told["next"]["file"]).name
        text = self.files[name]
        self.bao.kill9()
        self.bao.seal = "" if text == stanzas.NO_STANZA else text
        self.bao.write_config()
        self.bao.start()
        self.bao.wait_listening()

    def moves(self, told: dict[str, Any], seal: str, **evidence: Any) -> dict[str, Any]:
        """From the first restart to the proof, without a stop."""
        assert told["place"] == "restart", told
        self.restart(told)
        told = self.go_on()
        assert (told["place"], told["moved"] is not None) == ("prove", True), told
        self.restart(told)
        if seal != "shamir":
            self.bao.wait_active()
        told = self.go_on(**evidence)
        assert (told["place"], told["ended"], told["seal"]) == ("done", True, seal), told
        assert self.bao.kv_get(self.token, "it") == {"is": "here"}
        return told


def kms(folder: Path) -> tuple[Bao, str]:
    """A second OpenBao whose Transit has the keys ``old`` and ``shared``; its token."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key").write_bytes(os.urandom(32))
    bao = Bao(folder / "bao", static_seal(folder / "key"))
    bao.start()
    bao.wait_listening()
    token = bao.init().root_token
    bao.make_transit_key(token, "old")
    bao.must("POST", "transit/keys/shared", {"exportable": True}, token)
    return bao, token


def by_transit(other: tuple[Bao, str], key: str) -> str:
    """A stanza for that OpenBao."""
    bao, token = other
    return transit_seal(bao.address, token, key)

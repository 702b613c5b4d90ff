"""The site of the demonstration: kluis, a stock server that it guards, a disk, three people."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kluis.demo import files
from kluis.demo.processes import Ended, Processes, kluis_argv
from kluis.demo.view import View
from kluis.demo.watched import KLUIS_STATES, SERVER_STATES, Watched
from kluis.errors import ServerError, ServiceError
from kluis.keyring.strict import JSON
from kluis.servers.client import ServerClient

EXIT_LOCKED: Final = 2
NAMES: Final = ("alice", "bob", "carol")
MOUNT: Final = "secret"
PATH: Final = "demo"


@dataclass(slots=True)
class Held:
    """What only the demonstration's people and servers know. Not printed."""

    shares: dict[str, str] = field(default_factory=dict, repr=False)
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    root_tokens: dict[str, str] = field(default_factory=dict, repr=False)
    secret: dict[str, str] = field(default_factory=dict, repr=False)

    def take(self, issued: Mapping[str, JSON]) -> None:
        """Hand out what the first apply printed: a share to each person, a token to each server."""
        shares = _object(issued["shares"])[files.PEOPLE]
        if isinstance(shares, list):
            self.shares |= zip(NAMES, map(str, shares), strict=True)
        self.tokens |= {name: str(token) for name, token in _object(issued["tokens"]).items()}


class Site:
    """Two machines' worth of processes in one folder. Made by ``site``."""

    def __init__(self, folder: Path, processes: Processes, view: View) -> None:
        self.view = view
        self.held = Held()
        self.checks: list[str] = []
        self.folder = folder
        self._processes = processes
        self._bao = files.bao_binary()
        facade, *ports = files.free_ports(5)
        self.kluis = self._watched("kluis", facade, KLUIS_STATES)
        self.server = self._watched("server", ports[0], SERVER_STATES)
        self.second = self._watched("second server", ports[1], SERVER_STATES)
        self._configuration = folder / "kluis.toml"
        self._configuration.write_text(files.kluis_toml(facade))
        self._anchor = folder / files.ANCHOR_FILE
        for key, port, cluster_port in zip(
            (files.SERVER, files.SECOND), ports[:2], ports[2:], strict=True
        ):
            storage = folder / key
            storage.mkdir()
            text = files.bao_hcl(storage, port, cluster_port, facade, key)
            (folder / f"{key}.hcl").write_text(text)

    def _watched(self, name: str, port: int, states: Mapping[int, str]) -> Watched:
        address = f"http://127.0.0.1:{port}"
        return Watched(name, address, states, self._processes, self.view.state)

    # -- the services

    async def start_kluis(self) -> None:
        """Run ``kluis serve``."""
        argv = kluis_argv("serve", "--config", str(self._configuration))
        await self.kluis.start(argv, self.folder / "kluis.log")

    async def start_server(self) -> None:
        """Run the server that holds the secret."""
        await self._start_bao(self.server, files.SERVER)

    async def start_second(self) -> None:
        """Run the server that has nothing yet."""
        await self._start_bao(self.second, files.SECOND)

    async def empty_second(self) -> None:
        """End the second server, clear its storage, and run it again."""
        await self.second.kill()
        storage = self.folder / files.SECOND
        shutil.rmtree(storage)
        storage.mkdir()
        await self.start_second()

    async def _start_bao(self, server: Watched, key: str) -> None:
        argv = [self._bao, "server", f"-config={self.folder / f'{key}.hcl'}"]
        token = {"VAULT_TRANSIT_SEAL_TOKEN": self.held.tokens[key]}
        await server.start(argv, self.folder / f"{key}.log", token)

    async def kill_server(self) -> float:
        """Kill -9, and a start, as a service manager does it; the moment of the kill."""
        moment = await self.server.kill()
        await self.start_server()
        return moment

    async def power_cut(self) -> float:
        """Kill kluis and the server, and start both at once; the moment of the first kill."""
        moment = await self.server.kill()
        await self.kluis.kill()
        await self.start_kluis()
        await self.start_server()
        return moment

    # -- the disk

    def make_anchor(self) -> None:
        """Put a disk with a new key into place."""
        files.write_anchor_key(self._anchor)

    def take_anchor(self) -> None:
        """Take the disk out."""
        self._anchor.rename(self._anchor.with_suffix(".away"))

    def return_anchor(self) -> None:
        """Put the disk back."""
        self._anchor.with_suffix(".away").rename(self._anchor)

    def lose_anchor(self) -> None:
        """Destroy the disk."""
        self._anchor.unlink()

    # -- what people do

    async def lock(self) -> None:
        """``kluis lock``. Returns when nobody can unseal any more."""
        await self._must("lock", files.KEYRING)
        await self.kluis.until("locked")

    async def ask_anchors(self) -> None:
        """``kluis unlock`` without shares."""
        await self._must("unlock", files.KEYRING, "--anchors")
        await self.kluis.until("open")

    async def enter_share(self, name: str, *, opens: bool) -> None:
        """One person runs ``kluis unlock`` and enters one share. Raises ServiceError."""
        ended = await self._kluis("unlock", files.KEYRING, line=self.held.shares[name])
        expected = 0 if opens else EXIT_LOCKED
        if ended.code != expected:
            raise ServiceError(
                f"after the share of {name}, kluis unlock ended with {ended.code},"
                f" not {expected}: {ended.first_error}",
                "the share was not taken, or two shares are not what opens the keyring",
                "",
            )

    async def apply(self) -> Mapping[str, JSON]:
        """``kluis apply``; shares and tokens are in the answer."""
        return await self._must("apply", "--yes")

    async def anchor_state(self) -> str:
        """What ``kluis status`` says of the disk."""
        ended = await self._kluis("status", "--output", "json")
        found = _object(_object(json.loads(ended.output)["keyrings"])[files.KEYRING])
        return str(_object(_object(found["anchors"])[files.ANCHOR])["state"])

    def wraps_refused(self, client: str) -> int:
        """How many wraps of a client the audit log says were refused because kluis was locked."""
        log = (self.folder / "state" / "audit.jsonl").read_text().splitlines()
        wanted = {"client": client, "operation": "encrypt", "what": "locked", "verdict": "refused"}
        return sum(1 for line in log if wanted.items() <= json.loads(line).items())

    async def _must(self, *arguments: str) -> dict[str, JSON]:
        ended = await self._kluis(*arguments, "--output", "json")
        if ended.code != 0:
            raise ServiceError(
                f"kluis {' '.join(arguments)} ended with {ended.code}: {ended.first_error}", "", ""
            )
        return _object(json.loads(ended.output))

    async def _kluis(self, *arguments: str, line: str = "") -> Ended:
        argv = kluis_argv(*arguments, "--config", str(self._configuration))
        return await self._processes.run(argv, line)

    # -- the servers' contents

    async def init(self, server: Watched) -> None:
        """``operator init``, and a secret written. Raises ServerError."""
        async with ServerClient(server.address) as client:
            token = (await client.init(1, 1, kind="recovery")).root_token
            self.held.root_tokens[server.name] = token
            await server.until("active")
            self.held.secret.setdefault("value", secrets.token_hex(16))
            await client.mount_kv(token, MOUNT)
            await client.kv_put(token, MOUNT, PATH, self.held.secret)

    async def read_back(self, server: Watched) -> None:
        """Read the secret and compare it. Raises ServerError."""
        async with ServerClient(server.address) as client:
            found = await client.kv_get(self.held.root_tokens[server.name], MOUNT, PATH)
        if found != self.held.secret:
            raise ServerError(f"{server.name} gave another secret than was written", "", "")

    # -- what was found

    def check(self, holds: bool, words: str) -> None:
        """Note what was checked. Raises ServiceError when it does not hold."""
        if not holds:
            raise ServiceError(f"it does not hold that {words}", "", "")
        self.found(words)

    def found(self, words: str) -> None:
        """Note what a wait before it proved."""
        self.checks.append(words)
        self.view.checked(words)


@asynccontextmanager
async def site(folder: Path, view: View) -> AsyncIterator[Site]:
    """A site whose services are watched; they have ended when it is left."""
    async with Processes() as processes:
        made = Site(folder, processes, view)
        watches = [
            asyncio.create_task(watched.watch())
            for watched in (made.kluis, made.server, made.second)
        ]
        try:
            yield made
        finally:
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)


def _object(value: JSON) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise ServiceError("kluis printed something else than expected", "", "")
    return value

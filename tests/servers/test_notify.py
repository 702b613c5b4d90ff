"""sd_notify against a real datagram socket."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from kluis.servers.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_manager_hears_each_state(tmp_path: Path, abstract: bool) -> None:
    name = f"kluis-test-{secrets.token_hex(8)}"
    address = f"@{name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind(f"\0{name}" if abstract else address)
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
        notifier.ready("the server\nis unsealed")
        notifier.status("STOPPING=1\nwaiting")
        notifier.stopping()
        assert manager.recv(1024) == b"READY=1\nSTATUS=the server is unsealed"
        assert manager.recv(1024) == b"STATUS=STOPPING=1 waiting"
        assert manager.recv(1024) == b"STOPPING=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nobody/listens", "@nobody", "/" * 200])
def test_a_manager_that_is_not_there_does_no_harm(address: str | None) -> None:
    Notifier(address).ready("x")

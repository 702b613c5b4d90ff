"""What systemd wants to hear from a service of ``Type=notify``: sd_notify(3), the plain part."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Final, Self

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
SEND_TIMEOUT_S: Final = 1.0


class Notifier:
    """Sends states to a service manager's socket; without a socket it does nothing.

    A manager that does not listen is no reason to fail, so nothing here raises.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The manager that ``$NOTIFY_SOCKET`` names: a path, or ``@`` and an abstract name."""
        return cls(environment.get(SOCKET_VARIABLE))

    def ready(self, status: str) -> None:
        """The service does its work; ``status`` is one line for ``systemctl status``."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={_one_line(status)}")

    def stopping(self) -> None:
        """The service was told to end."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address or self._address[0] not in "/@":
            return
        address = self._address.encode()
        if address.startswith(b"@"):
            address = b"\0" + address[1:]
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as manager:
            manager.settimeout(SEND_TIMEOUT_S)
            manager.sendto(message.encode(), address)


def _one_line(text: str) -> str:
    return " ".join(text.split())

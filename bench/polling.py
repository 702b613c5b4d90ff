"""Waiting for a server's state at a grain of 2 ms, with next to no work for the machine."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.processes import BenchFailed

POLL_S: Final = 0.002


class Health:
    """Asks ``/v1/sys/health`` of one server, on one connection for as long as that lasts."""

    def __init__(self, address: str, ca_file: Path | None = None) -> None:
        url = urlsplit(address)
        host, port = url.hostname or "", url.port or 0
        self._connection = http.client.HTTPConnection(host, port, timeout=5.0)
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file)
            self._connection = http.client.HTTPSConnection(host, port, timeout=5.0, context=context)

    def __call__(self) -> int:
        """The HTTP status; 0 when nobody answers."""
        try:
            self._connection.request("GET", "/v1/sys/health")
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0
        return answer.status

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._connection.close()


def moment_of(
    health: Health,
    wanted: int,
    alive: Callable[[], None],
    timeout_s: float = 60.0,
    poll_s: float = POLL_S,
) -> float:
    """The time (``perf_counter``) at which the health first was ``wanted``.

    ``alive`` raises when the server has ended. Raises BenchFailed after ``timeout_s``.
    """
    started_s = time.perf_counter()
    while True:
        asked_s = time.perf_counter()
        status = health()
        now_s = time.perf_counter()
        if status == wanted:
            return now_s
        if now_s - started_s > timeout_s:
            raise BenchFailed(f"the health is {status}, not {wanted}, after {timeout_s:g} s")
        alive()
        time.sleep(max(0.0, poll_s - (now_s - asked_s)))

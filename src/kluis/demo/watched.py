"""One service of the demonstration, and what its ``sys/health`` says from moment to moment.

Times are of the loop's clock, in seconds. Health is asked each POLL_S, so what is measured from
it is late by at most that and one answer's time, never early.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from kluis.demo.processes import Processes
from kluis.errors import ServerError
from kluis.servers.client import ServerClient

POLL_S: Final = 0.02
ANSWER_S: Final = 5.0  # in the middle of an init a server answers nobody for two seconds
DEADLINE_S: Final = 20.0

DOWN: Final = "down"
"""Nobody answers. The other states are words of the service's own, by its health status."""

SERVER_STATES: Final = {200: "active", 501: "new", 503: "sealed"}
KLUIS_STATES: Final = {200: "open", 503: "locked"}


def now() -> float:
    """The present moment."""
    return asyncio.get_running_loop().time()


class Watched:
    """A service that is started, killed and watched. ``on_change`` gets its name and state."""

    def __init__(
        self,
        name: str,
        address: str,
        states: Mapping[int, str],
        processes: Processes,
        on_change: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.address = address
        self.state = DOWN
        self.version = ""
        self._states = states
        self._processes = processes
        self._on_change = on_change
        self._process: Process | None = None
        self._log: Path | None = None
        self._asked = 0.0
        self._last_seen: dict[str, float] = {}
        self._changes: list[tuple[float, str]] = []
        self._answered = asyncio.Condition()

    async def start(
        self, argv: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the process; returns at once."""
        self._log = log
        self._process = await self._processes.start(argv, log, environment)

    async def kill(self) -> float:
        """Kill -9, and wait until it is gone; the moment of the kill."""
        moment = now()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it died by itself
                self._process.kill()
            await self._process.wait()
        return moment

    async def watch(self) -> None:
        """Ask for the health until cancelled."""
        async with ServerClient(self.address, timeout_s=ANSWER_S) as client:
            while True:
                asked = now()
                state = await self._ask(client)
                async with self._answered:
                    self._note(asked, state)
                    self._answered.notify_all()
                await asyncio.sleep(POLL_S)

    async def _ask(self, client: ServerClient) -> str:
        try:
            health = await client.health()
        except ServerError:
            return DOWN
        self.version = health.version
        return self._states.get(health.status, "standby")

    def _note(self, asked: float, state: str) -> None:
        self._asked = self._last_seen[state] = asked
        if state != self.state:
            self.state = state
            self._changes.append((asked, state))
            self._on_change(self.name, state)

    async def until(self, state: str, within_s: float = DEADLINE_S) -> float:
        """Wait for a state, by an answer to a question asked from now on; the moment it was had.

        Raises ServerError when the process ends, or after ``within_s``.
        """
        since = now()
        try:
            async with asyncio.timeout(within_s), self._answered:
                while not (self.state == state and self._asked >= since):
                    self._must_run(state)
                    await self._answered.wait()
        except TimeoutError:
            raise self._failed(f"is {self.state} and not {state} after {within_s:g} s") from None
        return now()

    def _must_run(self, state: str) -> None:
        if self._process is not None and self._process.returncode is not None:
            raise self._failed(f"ended with {self._process.returncode} before it was {state}")

    def last_seen(self, state: str) -> float:
        """When the last question was asked that got this answer."""
        return self._last_seen[state]

    def states_since(self, moment: float) -> set[str]:
        """All states seen from a moment on, the one at that moment included."""
        before = [state for asked, state in self._changes if asked <= moment]
        return {*before[-1:], *(state for asked, state in self._changes if asked > moment)}

    def down_since(self, moment: float) -> float:
        """Seconds in which it was not active, from a moment on at which it was."""
        marks = [(moment, "active"), *(c for c in self._changes if c[0] > moment), (now(), "")]
        return sum(
            after - asked
            for (asked, state), (after, _) in itertools.pairwise(marks)
            if state != "active"
        )

    def _failed(self, what: str) -> ServerError:
        return ServerError(
            f"{self.name} {what}",
            f"its log ends with: {self._last_line()}",
            "kluis demo --keep DIR keeps the logs",
        )

    def _last_line(self) -> str:
        text = self._log.read_text("utf-8", "replace") if self._log else ""
        return next(reversed(text.split("\n")[:-1]), "nothing")

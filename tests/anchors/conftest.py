"""The real counterparts of anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Counterparts:
    """Servers that all tests of a session share; each is started when it is first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[object, Any] = {}

    def of(self, start: Callable[[], AbstractContextManager[T]]) -> T:
        """What ``start`` gave; it ends with the session."""
        if start not in self._running:
            self._running[start] = self._stack.enter_context(start())
        running: T = self._running[start]
        return running

    def end(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def counterparts() -> Iterator[Counterparts]:
    running = Counterparts()
    yield running
    running.end()

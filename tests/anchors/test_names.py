"""Look-ups of names: each host has its own threads, and what hangs holds up only itself."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from kluis.anchors import http, names
from kluis.errors import Unreachable

Found = list[tuple[object, ...]]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name server that never answers for one host: no real one can be made to, without root."""
    end, real = threading.Event(), socket.getaddrinfo

    def look_up(host: str, *more: object) -> object:
        if host == "silent.example":
            end.wait()
        return real(host, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(names, "_threads", {})
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield end
    end.set()


def test_an_address_needs_no_look_up(silent: threading.Event) -> None:
    async def look_up() -> None:
        assert await names.addresses("127.0.0.1", 80) == [(socket.AF_INET, "127.0.0.1")]
        assert await names.addresses("::1", 80) == [(socket.AF_INET6, "::1")]

    asyncio.run(look_up())


def test_a_name_is_found_while_the_look_ups_of_another_hang(silent: threading.Event) -> None:
    async def look_up() -> None:
        hanging = [
            asyncio.create_task(names.addresses("silent.example", 80))
            for _ in range(names.MOST_LOOKUPS)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Unreachable):  # no more threads for that one
            await names.addresses("silent.example", 80)
        async with asyncio.timeout(30):
            assert ("127.0.0.1") in [ip for _, ip in await names.addresses("localhost", 80)]
        for task in hanging:
            task.cancel()

    asyncio.run(look_up())


def test_a_name_that_does_not_exist_is_told_apart(silent: threading.Event) -> None:
    async def both() -> None:
        for call in (
            http.knock("http://no-such-host.invalid:80"),
            http.call("GET", "http://no-such-host.invalid:80"),
        ):
            with pytest.raises(Unreachable, match="is not known"):
                await call

    asyncio.run(both())

"""``kluis status`` is quick: people and monitors call it often."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import KLUIS, House

pytestmark = pytest.mark.alone

TARGET_S = 0.35
HEAVY = {
    "aiohttp",
    "asyncio",
    "cryptography",
    "kluis.configuration",
    "kluis.engine",
    "kluis.keyring",
    "kluis.settings.root",
    "prometheus_client",
    "rich",
    "shamir_mnemonic",
    "structlog",
    "uvicorn",
    "uvloop",
}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    made.apply()
    with made.serve_open():
        yield made


@pytest.mark.parametrize("output", ["text", "json"])
def test_status_of_a_running_service_takes_no_longer_than_the_target(
    output: str, house: House
) -> None:
    times = []
    for _ in range(5):
        began = time.monotonic()
        started(house, *KLUIS, "status", "--output", output)
        times.append(time.monotonic() - began)
    assert min(times) <= TARGET_S, times


@pytest.mark.parametrize("output", ["text", "json"])
def test_status_of_a_running_service_imports_nothing_heavy(output: str, house: House) -> None:
    argv = (KLUIS[0], "-X", "importtime", *KLUIS[1:], "status", "--output", output)
    imported = {line.rpartition("|")[2].strip() for line in started(house, *argv).splitlines()}
    assert "kluis.cli.status" in imported
    assert imported & HEAVY == set()


def started(house: House, *argv: str) -> str:
    """What a command, in an interpreter of its own, says on standard error."""
    done = subprocess.run(
        argv,
        cwd=house.folder,
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr

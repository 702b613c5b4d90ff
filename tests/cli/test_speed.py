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
    with made.serve() as service:
        service.wait_logged('"event": "opened"')
        yield made


@pytest.mark.parametrize("output", ["text", "json"])
def test_status_of_a_running_service_takes_no_longer_than_the_target(
    output: str, house: House
) -> None:
    times = []
    for _ in range(5):
        began = time.monotonic()
        house.text("status", "--output", output)
        times.append(time.monotonic() - began)
    assert min(times) <= TARGET_S, times


@pytest.mark.parametrize("output", ["text", "json"])
def test_status_of_a_running_service_imports_nothing_heavy(output: str, house: House) -> None:
    done = subprocess.run(
        [KLUIS[0], "-X", "importtime", *KLUIS[1:], "status", "--output", output],
        cwd=house.folder,
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "kluis.cli.status" in imported
    assert imported & HEAVY == set()

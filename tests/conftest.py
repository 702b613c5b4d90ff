"""Settings of all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# What an example may take, or its making, says nothing on a machine that others use too.
# In CI the same examples each time: what is found at random is found, and kept, by people.
settings.register_profile(
    "kluis",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kluis")


def pytest_configure(config: pytest.Config) -> None:
    """Programs that tests start are not measured: coverage costs each of them 0.2 s."""
    starts_workers = bool(config.getoption("numprocesses", None))
    if not starts_workers:
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

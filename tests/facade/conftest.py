"""How often a facade looks at its connections and files is the subject of no test."""

from __future__ import annotations

import pytest

from kluis.facade import server


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SWEEP_S", 0.05)

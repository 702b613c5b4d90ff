"""Commands of these tests start quickly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.support import warm
from tests.support.house import COMMAND_S, Done, House


@pytest.fixture(scope="package", autouse=True)
def _warm() -> Iterator[None]:
    """``House.kluis`` forks a process that has imported everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(House, "kluis", kluis)
        yield


def kluis(
    house: House,
    *arguments: str,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_S,
) -> Done:
    """As ``House.kluis`` does it."""
    its = {**house.environment, **(environment or {})}
    code, out, err = warm.run(arguments, house.folder, its, stdin.encode(), timeout_s)
    return Done(code, out.decode(), err.decode())

"""``kluis apply`` in this process: much quicker than the command, where that is not the subject.

house = House(tmp_path / "house")
token = applied(house)["tokens"]["bletchley"]
"""

from __future__ import annotations

import asyncio
from typing import Any

from kluis import compose, configuration
from kluis.service import operations
from tests.support.house import House


def applied(house: House) -> dict[str, Any]:
    """Apply the configuration of a house; paper and tokens, as ``House.apply`` gives them."""
    return asyncio.run(_apply(house))


async def _apply(house: House) -> dict[str, Any]:
    inside = compose.house(configuration.read(house.file), alone=True, accept_rollback=False)
    try:
        plan = await operations.call(inside, "plan", {})
        return dict(await operations.call(inside, "apply", {"digest": plan["digest"]}))
    finally:
        inside.close()

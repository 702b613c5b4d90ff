"""How far an awakening of the External Secrets Operator came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from kluis.errors import ApiRefused
from kluis.wake.freshness import Secret, SecretKey, Standing
from kluis.wake.stores import StoreKey


@dataclass(slots=True)
class Progress:
    """How far it came. Each dictionary has what is still open: stores by whether they are ready.

    ``refused`` are those that could not be annotated, with the reason.
    """

    stores: dict[StoreKey, bool] = field(default_factory=dict)
    left_alone: Sequence[StoreKey] = ()
    missing: Sequence[StoreKey] = ()
    asleep: dict[SecretKey, Secret] = field(default_factory=dict)
    refused: dict[SecretKey, ApiRefused] = field(default_factory=dict)
    standings: Counter[Standing] = field(default_factory=Counter)
    refreshed: int = 0
    looked: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left that waiting or waking could change."""
        return self.looked and not self.asleep and all(self.stores.values())

"""Since when a server is down, and when it is back. Nothing here has I/O.

A server is down when no node of it is unsealed, or none that is has known an active one for long,
and back when one is unsealed and active. In between, while standbys elect one, nothing changes. One
that only did not answer for a moment was not away: nobody needs to be woken for that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from kluis.servers.watch.states import Alarm, Condition, NodeView, Recovery

MOMENT_S: Final = 10.0


def _up_or_not_known(node: NodeView) -> bool:
    up = node.condition in (Condition.UNSEALED, Condition.UNKNOWN)
    return up and node.alarm is not Alarm.NO_LEADER


@dataclass(slots=True)
class Downtime:
    """One server's. Times are seconds of one clock that never jumps."""

    server: str
    since_s: float | None = None
    _listening_s: float | None = None
    _unsealed: bool = False
    _only_hung: bool = True

    def unsealed(self, listening_s: float | None) -> None:
        """A node came to be unsealed, so long after it began to listen; None: that was not seen."""
        if self.since_s is not None and not self._unsealed:
            self._unsealed, self._listening_s = True, listening_s

    def see(self, nodes: Collection[NodeView], now_s: float) -> Recovery | None:
        """How the nodes are now; a recovery when the server is back with that."""
        if any(node.condition is Condition.UNSEALED and node.active for node in nodes):
            return self._back(now_s)
        if not any(map(_up_or_not_known, nodes)):
            if self.since_s is None:
                self.since_s, self._only_hung = now_s, True
            conditions = {node.condition for node in nodes}
            self._only_hung = self._only_hung and conditions == {Condition.HUNG}
            self._unsealed, self._listening_s = False, None
        return None

    def _back(self, now_s: float) -> Recovery | None:
        if self.since_s is None:
            return None
        recovery = Recovery(self.server, now_s - self.since_s, self._listening_s)
        a_moment = self._only_hung and recovery.down_s < MOMENT_S
        self.since_s, self._listening_s, self._unsealed = None, None, False
        return None if a_moment else recovery

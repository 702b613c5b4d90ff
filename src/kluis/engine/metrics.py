"""What a monitor may know of keyrings: read off their guards when somebody asks.

No label has a value that a stranger chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kluis import telemetry
from kluis.engine.guard import Guard
from kluis.keyring import tokens, tree


class KeyringMetrics(Collector):
    """Every keyring of a process, its anchors, and when its clients' tokens end."""

    def __init__(self, guards: Mapping[str, Guard]) -> None:
        self._guards = guards

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """All of it, as it is now."""
        yield self._keyrings(telemetry.KEYRING_OPEN, "1 when open", lambda g: float(g.is_open))
        yield self._keyrings(telemetry.KEYRING_EPOCH, "Epoch", lambda g: g.document.epoch)
        yield self._keyrings(telemetry.KEYRING_REVISION, "Revision", lambda g: g.document.revision)
        yield self._anchors()
        yield self._notices()
        yield self._heals()
        yield self._expiries()

    def _keyrings(
        self, name: str, words: str, value: Callable[[Guard], float]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, words, labels=["keyring"])
        for guard in self._guards.values():
            family.add_metric([guard.name], value(guard))
        return family

    def _anchors(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            telemetry.ANCHOR_OK, "1 when it opened its leaf", labels=["keyring", "anchor", "state"]
        )
        for guard in self._guards.values():
            for name, status in guard.anchor_statuses().items():
                family.add_metric([guard.name, name, status.state], float(status.state == "ok"))
        return family

    def _notices(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            telemetry.ANCHOR_NOTICE,
            "1 while there is something to say of an anchor that works",
            labels=["keyring", "anchor"],
        )
        for guard in self._guards.values():
            for name, status in guard.anchor_statuses().items():
                family.add_metric([guard.name, name], float(status.notice is not None))
        return family

    def _heals(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            telemetry.HEALS,
            "Leaves that were sealed anew, or could not be",
            labels=["keyring", "anchor", "outcome"],
        )
        for guard in self._guards.values():
            for _, leaf in tree.machine_leaves(guard.document.tree):
                for outcome in ("healed", "failed"):
                    count = guard.health.heals[leaf.name, outcome]
                    family.add_metric([guard.name, leaf.name, outcome], count)
        return family

    def _expiries(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            telemetry.CLIENT_EXPIRY,
            "Seconds until a client's last token expires",
            labels=["keyring", "client"],
        )
        now = datetime.now(UTC)
        for guard in self._guards.values():
            for name, client in guard.document.clients.items():
                if end := tokens.last_expiry(client):
                    left = datetime.fromisoformat(end) - now
                    family.add_metric([guard.name, name], left.total_seconds())
        return family

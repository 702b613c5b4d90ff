"""Metrics for Prometheus. They are plain numbers until somebody asks: the hot path only adds.

No label has a value that a stranger chose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kluis import telemetry
from kluis.engine.guard import Guard
from kluis.facade.limits import Spared
from kluis.facade.replies import Headers
from kluis.keyring import tokens

CONTENT_TYPE: Headers = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)


class Metrics:
    """What one facade counts, and what its guards are in, at the time of asking."""

    def __init__(
        self,
        guards: Mapping[str, Guard],
        held: Callable[[], int],
        connections: Callable[[], int],
    ) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """By operation, purpose and verdict."""
        self.unseals: Counter[tuple[str, str, str]] = Counter()
        """Decrypts that opened a server, by keyring, key and client."""
        self.denials = 0
        self._guards = guards
        registry = CollectorRegistry()
        registry.register(_Counts(self))
        registry.register(_Present(guards, held, connections))
        self._text = Spared(lambda: generate_latest(registry))

    def text(self) -> bytes:
        """All metrics in the text format."""
        return self._text.get(tuple(guard.is_open for guard in self._guards.values()))


class _Counts(Collector):
    """What was counted since the start."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[CounterMetricFamily]:
        counted = self._metrics
        yield _family(
            CounterMetricFamily(
                telemetry.REQUESTS,
                "Requests by operation, purpose and verdict",
                labels=["operation", "what", "verdict"],
            ),
            counted.requests,
        )
        yield _family(
            CounterMetricFamily(
                telemetry.UNSEALS,
                "Decrypts that opened a server",
                labels=["keyring", "key", "client"],
            ),
            counted.unseals,
        )
        yield CounterMetricFamily(
            telemetry.DENIALS, "Requests without a valid client", value=counted.denials
        )


def _family(
    family: CounterMetricFamily, counts: Mapping[tuple[str, str, str], int]
) -> CounterMetricFamily:
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


class _Present(Collector):
    """Gauges that are read off the guards when somebody asks."""

    def __init__(
        self,
        guards: Mapping[str, Guard],
        held: Callable[[], int],
        connections: Callable[[], int],
    ) -> None:
        self._guards = guards
        self._held = held
        self._connections = connections

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        yield GaugeMetricFamily(telemetry.HELD, "Requests that wait", value=self._held())
        yield GaugeMetricFamily(
            telemetry.CONNECTIONS, "Open connections", value=self._connections()
        )
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
            for (anchor, outcome), count in guard.health.heals.items():
                family.add_metric([guard.name, anchor, outcome], count)
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

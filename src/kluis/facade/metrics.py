"""Metrics for Prometheus. They are plain numbers until somebody asks: the hot path only adds.

No label has a value that a stranger chose.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from kluis import telemetry
from kluis.engine.durations import Durations
from kluis.engine.guard import Guard
from kluis.engine.metrics import KeyringMetrics
from kluis.facade.hold import Hold
from kluis.facade.limits import Spared
from kluis.facade.replies import Headers

CONTENT_TYPE: Headers = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)


class Text:
    """What some collectors tell, in the text format."""

    def __init__(self, guards: Mapping[str, Guard], *collectors: Collector) -> None:
        self._guards = guards
        self._registry = CollectorRegistry()
        for collector in (*collectors, KeyringMetrics(guards)):
            self.add(collector)
        self._text = Spared(lambda: generate_latest(self._registry))

    def add(self, collector: Collector) -> None:
        """Tell this, too."""
        self._registry.register(collector)

    def text(self) -> bytes:
        """All of it."""
        return self._text.get(tuple(guard.is_open for guard in self._guards.values()))


class Listening(Protocol):
    """What a facade knows of its own connections and certificate."""

    hold: Hold
    connections: int
    certificate_ends_s: float | None


class Metrics(Text):
    """What one facade counts, and what its guards are in, at the time of asking."""

    def __init__(self, guards: Mapping[str, Guard], facade: Listening) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """By operation, purpose and verdict."""
        self.unseals: Counter[tuple[str, str, str]] = Counter()
        """Decrypts that opened a server, by keyring, key and client."""
        self.denials = 0
        self.waited = Durations(
            telemetry.WAITED, "From a server's first held unseal to its answer", ["keyring"]
        )
        super().__init__(guards, _Counts(self, guards), _Present(facade))


class _Counts(Collector):
    """What was counted since the start."""

    def __init__(self, metrics: Metrics, guards: Mapping[str, Guard]) -> None:
        self._metrics = metrics
        self._guards = guards

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
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
        counted.waited.know((name,) for name in self._guards)
        yield counted.waited.family()


def _family(
    family: CounterMetricFamily, counts: Mapping[tuple[str, str, str], int]
) -> CounterMetricFamily:
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


class _Present(Collector):
    """Gauges of the facade itself, when somebody asks."""

    def __init__(self, facade: Listening) -> None:
        self._facade = facade

    def collect(self) -> Iterator[GaugeMetricFamily]:
        facade = self._facade
        yield GaugeMetricFamily(telemetry.HELD, "Requests that wait", value=facade.hold.held)
        yield GaugeMetricFamily(telemetry.CONNECTIONS, "Open connections", value=facade.connections)
        if facade.certificate_ends_s is not None:
            yield GaugeMetricFamily(
                telemetry.FACADE_CERTIFICATE_EXPIRY,
                "Seconds until the facade's certificate, or one of its chain, expires",
                value=facade.certificate_ends_s - time.time(),
            )

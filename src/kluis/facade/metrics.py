"""Metrics for Prometheus. Counters are bound once, so that the hot path only adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kluis import telemetry
from kluis.engine.guard import Guard
from kluis.facade.replies import Reply


class Metrics:
    """What one facade counts, and what its guards are in, at the time of asking."""

    def __init__(
        self,
        guards: Mapping[str, Guard],
        held: Callable[[], int],
        connections: Callable[[], int],
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            telemetry.REQUESTS,
            "Requests by operation, purpose and verdict",
            ["operation", "what", "verdict"],
            registry=self._registry,
        )
        self._unseals = Counter(
            telemetry.UNSEALS,
            "Decrypts that opened a server",
            ["keyring", "key", "client"],
            registry=self._registry,
        )
        self.denials = Counter(
            telemetry.DENIALS, "Requests without a valid client", registry=self._registry
        )
        self._bound: dict[tuple[str, str, str], Counter] = {}
        self._registry.register(_Present(guards, held, connections))

    def count(self, operation: str, what: str, verdict: str) -> None:
        """One more request."""
        labels = (operation, what, verdict)
        bound = self._bound.get(labels)
        if bound is None:
            bound = self._bound[labels] = self._requests.labels(*labels)
        bound.inc()

    def unsealed(self, keyring: str, key: str, client: str) -> None:
        """One more real unseal."""
        self._unseals.labels(keyring, key, client).inc()

    def reply(self) -> Reply:
        """All metrics in the text format."""
        kind = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
        return Reply(200, generate_latest(self._registry), kind)


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

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(telemetry.HELD, "Requests that wait", value=self._held())
        yield GaugeMetricFamily(
            telemetry.CONNECTIONS, "Open connections", value=self._connections()
        )
        yield self._keyrings(telemetry.KEYRING_OPEN, "1 when open", lambda g: float(g.is_open))
        yield self._keyrings(telemetry.KEYRING_EPOCH, "Epoch", lambda g: g.document.epoch)
        yield self._keyrings(telemetry.KEYRING_REVISION, "Revision", lambda g: g.document.revision)
        yield self._anchors()
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

    def _expiries(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            telemetry.CLIENT_EXPIRY,
            "Seconds until a client's last token expires",
            labels=["keyring", "client"],
        )
        now = datetime.now(UTC)
        for guard in self._guards.values():
            for name, client in guard.document.clients.items():
                ends = [token.expires for token in client.tokens]
                if ends and None not in ends:
                    last = datetime.fromisoformat(max(end for end in ends if end))
                    family.add_metric([guard.name, name], (last - now).total_seconds())
        return family

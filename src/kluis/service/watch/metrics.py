"""What a monitor may know of watched servers: read off the watcher when somebody asks.

Labels are names of kluis.toml, words of kluis, and addresses that discovery gave: nothing that a
stranger chose.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from kluis import telemetry
from kluis.engine.durations import Durations
from kluis.servers.watch.states import NodeView, Recovery, ServerView

OK: Final = "ok"
FAILED: Final = "failed"
UNSEALING_S: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 5, 10, 30, 60)
"""Upper bounds for what lasts about as long as a server's own unseal, and should not last more."""

Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily
Views = Mapping[str, ServerView]


class WatchMetrics(Collector):
    """What the watcher sees now, and what was counted since the start."""

    def __init__(self, views: Callable[[], Views], hooks: Iterable[tuple[str, str]] = ()) -> None:
        """``hooks`` are the names and kinds of those that may run."""
        self._views = views
        self._recoveries = Durations(
            telemetry.RECOVERY, "From no node working until one works again", ["server"]
        )
        self._unsealings = Durations(
            telemetry.UNSEALING,
            "From a node's first answer until unsealed",
            ["server"],
            UNSEALING_S,
        )
        self._sent: Counter[str] = Counter()
        self._wakes: Counter[tuple[str, str, str]] = Counter()
        self.know(hooks)

    def know(self, hooks: Iterable[tuple[str, str]]) -> None:
        """Tell of these hooks, too: a rate can't see the step from nothing."""
        for name, kind in hooks:
            for outcome in (OK, FAILED):
                self._wakes[name, kind, outcome] += 0

    def sent(self, server: str, count: int) -> None:
        """So many shares were sent."""
        self._sent[server] += count

    def recovered(self, recovery: Recovery) -> None:
        """A server is back."""
        self._recoveries.add((recovery.server,), recovery.down_s)
        if recovery.listening_s is not None:
            self._unsealings.add((recovery.server,), recovery.listening_s)

    def woken(self, hook: str, kind: str, *, ok: bool) -> None:
        """A hook ran."""
        self._wakes[hook, kind, OK if ok else FAILED] += 1

    def collect(self) -> Iterator[Family]:
        """All of it, as it is now."""
        views, now_s = self._views(), time.time()
        yield from _nodes(views)
        yield from _servers(views, now_s)
        yield _certificates(views, now_s)
        for durations in (self._recoveries, self._unsealings):
            durations.know((name,) for name in views)
            yield durations.family()
        yield self._shares(views)
        yield self._hooks()

    def _shares(self, views: Views) -> CounterMetricFamily:
        family = CounterMetricFamily(telemetry.SHARES_SENT, "Shares pushed", labels=["server"])
        for name in views:
            family.add_metric([name], self._sent[name])
        return family

    def _hooks(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            telemetry.WAKES, "Hooks run after recoveries", labels=["hook", "kind", "outcome"]
        )
        for labels, count in self._wakes.items():
            family.add_metric(labels, count)
        return family


def _each(views: Views) -> Iterator[tuple[str, NodeView]]:
    return ((name, node) for name, view in views.items() for node in view.nodes.values())


def _nodes(views: Views) -> Iterator[GaugeMetricFamily]:
    conditions = GaugeMetricFamily(
        telemetry.SERVER_NODE, "1 for what a node is in", labels=["server", "node", "condition"]
    )
    alarms = GaugeMetricFamily(
        telemetry.SERVER_ALARM,
        "1 while a person must look at it",
        labels=["server", "node", "alarm"],
    )
    for name, node in _each(views):
        conditions.add_metric([name, node.address, node.condition], 1)
        if node.alarm is not None:
            alarms.add_metric([name, node.address, node.alarm], 1)
    yield conditions
    yield alarms


def _servers(views: Views, now_s: float) -> Iterator[GaugeMetricFamily]:
    down = GaugeMetricFamily(
        telemetry.SERVER_DOWN,
        "Seconds for which no node works; 0 while one does",
        labels=["server"],
    )
    held = GaugeMetricFamily(
        telemetry.SERVER_HELD, "1 while a person asks for it to be let be", labels=["server"]
    )
    left = GaugeMetricFamily(
        telemetry.SERVER_HOLD, "Seconds until that ends, where it does", labels=["server"]
    )
    for name, view in views.items():
        since_s = now_s if view.down_since_s is None else view.down_since_s
        down.add_metric([name], max(0.0, now_s - since_s))
        held.add_metric([name], float(view.hold is not None))
        if view.hold is not None and view.hold.until_s is not None:
            left.add_metric([name], view.hold.until_s - now_s)
    yield from (down, held, left)


def _certificates(views: Views, now_s: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        telemetry.SERVER_CERTIFICATE_EXPIRY,
        "Seconds until a server's certificate expires",
        labels=["server", "node"],
    )
    for name, node in _each(views):
        if node.certificate_ends_s is not None:
            family.add_metric([name, node.address], node.certificate_ends_s - now_s)
    return family

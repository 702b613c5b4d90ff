"""How long things took, counted in buckets: a histogram that is plain numbers until asked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily

RECOVERY_S: Final = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds for what lasts from a server's own restart to an hour that people need."""


class Durations:
    """Durations in seconds, by the values of some labels."""

    def __init__(
        self, name: str, words: str, labels: Sequence[str], bounds_s: Sequence[float] = RECOVERY_S
    ) -> None:
        self._name, self._words, self._labels = name, words, tuple(labels)
        self._bounds_s = tuple(bounds_s)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums_s: dict[tuple[str, ...], float] = {}

    def know(self, labels: Iterable[tuple[str, ...]]) -> None:
        """Tell of these from now on, and of no others: a rate can't see the step from nothing."""
        known = set(labels)
        self._counts = {one: self._counts.get(one) or self._empty() for one in sorted(known)}
        self._sums_s = {one: self._sums_s.get(one, 0.0) for one in self._counts}

    def add(self, labels: tuple[str, ...], took_s: float) -> None:
        """Count one that took so long."""
        counts = self._counts.setdefault(labels, self._empty())
        counts[bisect_left(self._bounds_s, took_s)] += 1
        self._sums_s[labels] = self._sums_s.get(labels, 0.0) + took_s

    def _empty(self) -> list[int]:
        return [0] * (len(self._bounds_s) + 1)

    def family(self) -> HistogramMetricFamily:
        """As Prometheus reads it: ``_bucket``, ``_count`` and ``_sum``."""
        family = HistogramMetricFamily(self._name, self._words, labels=self._labels)
        names = [*(str(float(bound)) for bound in self._bounds_s), "+Inf"]
        for labels, counts in self._counts.items():
            buckets = list(zip(names, map(float, accumulate(counts)), strict=True))
            family.add_metric(labels, buckets, self._sums_s[labels])
        return family

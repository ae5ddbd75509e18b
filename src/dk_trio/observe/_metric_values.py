"""Values of metrics: those that are counted as things happen, and the book that a scrape is written from.

What is counted here costs each RPC and each job some tenths of a microsecond: plain numbers without locks, as one loop
does it all. prometheus-client's own histograms take a lock for each observation, which is ten times as much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ._metric_names import METRICS

if TYPE_CHECKING:
    from prometheus_client import Metric as Family


class Histogram:
    """Observations by size. What is above the last bound counts, too."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Note one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> tuple[list[int], float]:
        """How many fell into each bucket, and the sum of all."""
        return [*self._counts], self._sum


class Book:
    """What one scrape tells: numbers by name and labels. Those that come twice, from two servers, are added up."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], tuple[list[int], float]]] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """Tell a number.

        Args:
            name: Of a gauge or counter in the table, without `dk_trio_`.
            value: The number.
            labels: Values of its labels, in the order of the table.
        """
        rows = self._numbers.setdefault(name, {})
        rows[labels] = rows.get(labels, 0.0) + value

    def least(self, name: str, value: float) -> None:
        """Tell a number without labels, of which the least counts."""
        rows = self._numbers.setdefault(name, {})
        rows[()] = min(rows.get((), value), value)

    def most(self, name: str, value: float) -> None:
        """Tell a number without labels, of which the greatest counts."""
        rows = self._numbers.setdefault(name, {})
        rows[()] = max(rows.get((), value), value)

    def count(self, name: str, histogram: Histogram, *labels: str) -> None:
        """Tell a histogram."""
        self._histograms.setdefault(name, {})[labels] = histogram.read()

    def families(self) -> Iterator[Family]:
        """In prometheus-client's terms."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, rows in self._numbers.items():
            metric = METRICS[f"dk_trio_{name}"]
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.about, labels=metric.labels)
            for labels, value in rows.items():
                family.add_metric(labels, value)
            yield family
        for name, histograms in self._histograms.items():
            metric = METRICS[f"dk_trio_{name}"]
            buckets = HistogramMetricFamily(metric.name, metric.about, labels=metric.labels)
            for labels, (counts, total) in histograms.items():
                buckets.add_metric(labels, _cumulative(metric.buckets, counts), total)
            yield buckets


def _cumulative(bounds: Iterable[float], counts: list[int]) -> list[tuple[str, int]]:
    so_far = 0
    rows = []
    for bound, count in zip([*map(_bound, bounds), "+Inf"], counts, strict=True):
        so_far += count
        rows.append((bound, so_far))
    return rows


def _bound(bound: float) -> str:
    return repr(float(bound))

"""Series of several processes, added up: counters, and histograms from their single buckets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.samples import Exemplar, Sample

from service.observability.metrics.exact import exact, rounded
from service.observability.metrics.shared import Reading
from service.observability.metrics.shared_layout import Key

Labels = frozenset[tuple[str, str]]


@dataclass
class Total:
    """The exact sum of a value over several workers, as floats to add, and the newest exemplar."""

    parts: list[float] = field(default_factory=list)
    exemplar: Exemplar | None = None

    def add(self, reading: Reading) -> None:
        self.parts.append(reading.value)
        self.exemplar = newest(self.exemplar, reading.exemplar)

    def merge(self) -> None:
        """Keep the sum in as few floats as possible."""
        self.parts = exact(self.parts)


Totals = dict[Key, Total]
Series = dict[tuple[str, Labels], Total]
"""By sample name and labels. Buckets are cumulative, and in the order of the text formats."""


def newest(one: Exemplar | None, other: Exemplar | None) -> Exemplar | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda exemplar: float(exemplar.timestamp or 0.0))


def add_readings(totals: Totals, readings: Iterable[Reading]) -> None:
    for reading in readings:
        totals.setdefault(reading.key, Total()).add(reading)


def series_of(totals: Totals) -> Series:
    """The series of one family."""
    series: Series = {}
    buckets: dict[Labels, dict[float, Key]] = defaultdict(dict)
    for key, total in totals.items():
        if key.type == "counter":
            series[key.sample, frozenset(key.labels)] = total
        elif key.sample.endswith("_bucket"):
            labels = frozenset(pair for pair in key.labels if pair[0] != "le")
            buckets[labels][float(dict(key.labels)["le"])] = key
    for labels, keys in buckets.items():
        if math.inf in keys:  # else a worker is creating it, and all is 0
            series |= _histogram(labels, [keys[bound] for bound in sorted(keys)], totals)
    return series


def _histogram(labels: Labels, keys: list[Key], totals: Totals) -> Series:
    family, count = keys[0].family, 0.0
    series: Series = {}
    for key in keys:
        count = rounded([count, *totals[key].parts])
        series[key.sample, frozenset(key.labels)] = Total([count], totals[key].exemplar)
    series[f"{family}_count", labels] = Total([count])
    total = totals.get(Key("histogram", family, f"{family}_sum", tuple(sorted(labels))))
    series[f"{family}_sum", labels] = total or Total()
    return series


def summed(own: Iterable[Sample], others: Series) -> list[Sample]:
    """Own samples with the others' counts added, and then the series that only others have. Empties `others`."""
    samples = []
    for sample in own:
        total = others.pop((sample.name, frozenset(sample.labels.items())), Total())
        value, exemplar = rounded([sample.value, *total.parts]), newest(sample.exemplar, total.exemplar)
        samples.append(sample._replace(value=value, exemplar=exemplar))
    for (name, labels), total in others.items():
        samples.append(Sample(name, dict(sorted(labels)), rounded(total.parts), None, total.exemplar))
    return samples

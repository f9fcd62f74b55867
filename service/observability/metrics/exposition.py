"""Metrics in the Prometheus or OpenMetrics text format; only the latter has exemplars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class Exposition:
    """The response to a scrape."""

    content: bytes
    media_type: str


class _WithoutCreated(Collector):
    """Drops the `_created` series, which double the output and which no rule or panel uses."""

    def __init__(self, families: Collector) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def expose(families: Collector, accept: str) -> Exposition:
    """All metrics in the format that the Accept header requests."""
    encode, media_type = choose_encoder(accept)
    return Exposition(encode(_WithoutCreated(families)), media_type)

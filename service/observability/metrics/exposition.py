"""Metrics as text: Prometheus' own form, or OpenMetrics, which alone carries exemplars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class Exposition:
    """What a scrape is answered with."""

    content: bytes
    media_type: str


class _WithoutCreated(Collector):
    """Leaves out when each series began: as many series again, which nothing here reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def expose(registry: CollectorRegistry, accept: str) -> Exposition:
    """All metrics in the form that an Accept header asks for."""
    encode, media_type = choose_encoder(accept)
    return Exposition(encode(_WithoutCreated(registry)), media_type)

"""The service: all parts that answer requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from feature_cache.background import Background
from service.answering.explainer import Explainer
from service.answering.recommender import Recommender
from service.batching.entry import Entries
from service.histories.opening import Histories
from service.versions.administration import Administration
from service.versions.domains import Domains


@dataclass(frozen=True)
class Service:
    """The parts that HTTP routes and the command line use."""

    domains: Domains
    lanes: Entries
    recommender: Recommender
    explainer: Explainer
    changes: Administration | None
    """None in a worker, whose engine process makes all changes."""
    histories: Histories | None
    """None if no histories are kept."""
    background: Background
    problems: Callable[[], Sequence[str]]
    """Current causes of degraded answers: embeddings that cannot be fetched, missing versions, changed files,
    background tasks that are down."""

    @property
    def administration(self) -> Administration:
        assert self.changes is not None, "a worker passes calls of /admin on"
        return self.changes

"""Opens the service: the bundle, its engine, and all parts that answer requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from feature_cache.background import Background
from model.planning.runtime import Runtime, load_runtime
from service.answering.beam_reduction import open_reduction
from service.answering.explainer import Explainer
from service.answering.opening import VersionParts, open_administration, opening_of
from service.answering.parts import Service
from service.answering.recommender import RankingRules, Recommender
from service.answering.stored_histories import StoredHistories
from service.batching.lanes import Lanes
from service.histories.opening import open_histories
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.settings.settings import Settings
from service.versions.domains import Domains
from service.versions.features import open_features
from service.versions.file_watch import FileWatch
from service.versions.followers import Followers
from service.versions.journal import Journal, NoJournal

LANES_CLOSE_S = 5.0

Loader = Callable[[Settings], Runtime]


def load(settings: Settings) -> Runtime:
    """Verify and load the bundle. Raises BundleError kinds."""
    return load_runtime(
        settings.bundle,
        device=settings.device,
        num_threads=settings.num_threads,
        engine=settings.engine,
        buckets=settings.graph_buckets,
        opening=opening_of(settings),
    )


@asynccontextmanager
async def open_service(
    settings: Settings,
    metrics: Metrics,
    liveness: Liveness,
    loader: Loader = load,
    journal: Journal | None = None,
    followers: Followers | None = None,
    *,
    holds_all: bool = True,
) -> AsyncIterator[Service]:
    """Load the bundle and run the lanes of its engine. Without a journal, the bundle is served unchanged.

    `followers` show what is served, too. Without `holds_all`, domains are loaded when somebody holds them.

    Raises BundleError kinds, BeamTableError, and JournalError for a file of histories that cannot be used.
    """
    runtime = await asyncio.to_thread(loader, settings)
    background = Background(metrics)
    async with (
        aclosing(background),
        open_features(settings.feature_options, metrics, background) as features,
        open_histories(settings.history_options, metrics, background) as histories,
    ):
        metrics.watch_gpu(settings.device)
        lanes = Lanes(runtime.engine, settings.queue_limits, metrics, liveness.note_crash)
        liveness.watch(lanes.all)
        domains = Domains()
        beams = open_reduction(settings.reduction_options, lanes.ranking.completion_s)
        stored = StoredHistories(histories, metrics, settings.max_history)
        rules = RankingRules(settings.request_limits, beams, stored)
        recommender = Recommender(domains, lanes, metrics, rules, background)
        file_watch = FileWatch(domains)
        parts = VersionParts(runtime, domains, features, lanes, recommender, metrics, file_watch, background)
        async with (
            lanes.running(background, LANES_CLOSE_S),
            aclosing(recommender),
            open_administration(
                settings, parts, journal or NoJournal(), followers, holds_all=holds_all
            ) as administration,
        ):
            yield Service(
                lanes=lanes,
                domains=domains,
                recommender=recommender,
                explainer=Explainer(domains, lanes, metrics, settings.request_limits),
                changes=administration,
                histories=histories,
                background=background,
                problems=lambda: [
                    *features.problems(),
                    *(() if histories is None else histories.store.problems),
                    *administration.replica.problems,
                    *administration.membership.problems,
                    *file_watch.problems,
                    *background.problems,
                ],
            )

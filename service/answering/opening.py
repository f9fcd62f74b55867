"""Opens the administration of versions, and restores the versions recorded in the journal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from feature_cache.background import Background
from feature_cache.remote.link import connect
from model.bundle.bundle import Opening
from model.bundle.index.cache import IndexCache
from model.bundle.signatures import trusted_keys
from model.planning.runtime import Runtime
from service.answering.readiness import warm_up_version
from service.answering.recommender import Recommender
from service.batching.lanes import Lanes
from service.observability.metrics import Metrics
from service.settings import JournalOptions, Settings
from service.versions.administration import Administration
from service.versions.domains import Domains
from service.versions.features import Features
from service.versions.file_journal import FileJournal
from service.versions.file_watch import FileWatch, watch_files
from service.versions.followers import Followers
from service.versions.journal import Journal, NoJournal
from service.versions.redis_journal import RedisJournal
from service.versions.replica import Replica
from service.versions.slots import Slots
from service.versions.version_loader import Sources, VersionLoader

FENCE_POLL_S = 0.01


@dataclass(frozen=True)
class VersionParts:
    """The parts that versions are loaded with and answer through."""

    runtime: Runtime
    domains: Domains
    features: Features
    lanes: Lanes
    recommender: Recommender
    metrics: Metrics
    file_watch: FileWatch
    background: Background


def opening_of(settings: Settings) -> Opening:
    """How the service opens bundles."""
    folder = settings.index_folder
    return Opening(trusted_keys(settings.trusted_keys), None if folder is None else IndexCache(folder))


@asynccontextmanager
async def open_administration(
    settings: Settings, parts: VersionParts, journal: Journal, followers: Followers | None = None
) -> AsyncIterator[Administration]:
    """Serve the versions recorded in the journal, and follow the journal in the block.

    Raises BundleError kinds and JournalError.
    """
    runtime = parts.runtime
    taken = (domain.slot for domain in runtime.domains.values())
    slots = Slots(runtime.engine, taken, lambda: _fence(parts.lanes), parts.background)
    sources = Sources(runtime, settings.admin_options.bundles_root, opening_of(settings))
    loader = VersionLoader(sources, slots, parts.features, lambda version: warm_up_version(parts.recommender, version))
    parts.metrics.watch_journal(lambda: journal.is_broken, lambda: journal.num_unread)
    replica = Replica(parts.domains, loader, journal, parts.metrics, followers)
    await replica.start([await loader.adopt(domain) for domain in runtime.domains.values()])
    try:
        async with (
            parts.background.kept("journal", replica.follow),
            parts.background.kept("files", lambda: watch_files(parts.file_watch, settings.files_check_s)),
        ):
            yield Administration(
                replica,
                loader,
                parts.metrics,
                can_put_features=parts.features.is_embedded,
                wait_s=settings.admin_options.wait_s,
            )
    finally:
        await slots.close()
        await journal.close()


def open_journal(options: JournalOptions, metrics: Metrics) -> Journal:
    """The journal of the settings; NoJournal if changes are disabled and none was ever recorded.

    Raises JournalError for a file that cannot be used.
    """
    if options.redis is not None:
        return RedisJournal(connect(options.redis), options.service_id, metrics, signing=options.signing)
    if not options.is_wanted and not os.path.lexists(options.path):
        return NoJournal()
    journal = FileJournal(options.path, is_written=options.is_written)
    journal.check()
    return journal


async def _fence(lanes: Lanes) -> None:
    """Wait until all plans that the lanes run now have left the engine."""
    # Let a lane that is taking a batch register it first.
    await asyncio.sleep(FENCE_POLL_S)
    running = {plan for lane in lanes.all for plan in lane.running}
    while running & {plan for lane in lanes.all for plan in lane.running}:  # noqa: ASYNC110  # lanes are threads
        await asyncio.sleep(FENCE_POLL_S)

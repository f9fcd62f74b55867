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
from model.decoding.leaf_boosts import BoostTable
from model.planning.runtime import Runtime
from service.answering.readiness import warm_up_version
from service.answering.recommender import Recommender
from service.batching.lanes import Lanes
from service.observability.metrics import Metrics
from service.settings.options import JournalOptions
from service.settings.settings import Settings
from service.versions.administration import Administration
from service.versions.bundle_source import BundleSource
from service.versions.domains import Domains
from service.versions.features import Features
from service.versions.file_journal import FileJournal
from service.versions.file_watch import FileWatch, watch_files
from service.versions.followers import Followers
from service.versions.held_domains import HeldDomains
from service.versions.journal import Journal, NoJournal
from service.versions.membership import Alone, Membership, RedisMembership
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
    settings: Settings,
    parts: VersionParts,
    journal: Journal,
    followers: Followers | None = None,
    *,
    holds_all: bool = True,
) -> AsyncIterator[Administration]:
    """Serve the versions recorded in the journal, and follow the journal in the block.

    Without `holds_all`, no domain is served before somebody holds it.

    Raises BundleError kinds and JournalError.
    """
    runtime = parts.runtime
    taken = (domain.slot for domain in runtime.domains.values())
    slots = Slots(runtime.engine, taken, lambda: _fence(parts.lanes), parts.background)
    opening = opening_of(settings)
    options = settings.admin_options
    bundles = BundleSource(options.bundles_root, options.bundle_store, opening.trusted)
    sources = Sources(runtime, bundles, opening)
    loader = VersionLoader(sources, slots, parts.features, lambda version: warm_up_version(parts.recommender, version))
    kind = Replica if holds_all else HeldDomains
    replica = kind(parts.domains, loader, journal, parts.metrics, followers)
    parts.metrics.watch_journal(
        lambda: journal.is_broken, lambda: journal.num_unread, lambda: replica.progress.behind_s
    )
    await replica.start([await loader.adopt(domain) for domain in runtime.domains.values()])
    try:
        if tables := _rules_of(parts.domains):
            await asyncio.to_thread(runtime.engine.expect_boosts, tables)
        async with (
            parts.background.kept("journal", replica.follow),
            parts.background.kept("files", lambda: watch_files(parts.file_watch, settings.files_check_s)),
            _membership_of(settings, replica, parts.background) as membership,
        ):
            yield Administration(
                replica,
                loader,
                parts.metrics,
                membership,
                can_put_features=parts.features.is_embedded,
                wait_s=settings.admin_options.wait_s,
            )
    finally:
        await slots.close()
        await journal.close()


def _rules_of(domains: Domains) -> list[BoostTable]:
    """Tables of the boosts of all domains that have some."""
    served = [version.domain for _, serving in domains.items() for version in serving.with_traffic]
    tables = [domain.boosts.rules_of(domain.eligible({})) for domain in served]
    return [table for table in tables if table is not None]


@asynccontextmanager
async def _membership_of(settings: Settings, replica: Replica, background: Background) -> AsyncIterator[Membership]:
    """Where replicas share the journal, this one is registered inside the block."""
    options = settings.journal_options
    if options.redis is None or not replica.journal.is_shared:
        yield Alone(replica, settings.replica_options)
        return
    link = connect(options.redis)
    membership = RedisMembership(link, options.service_id, replica, settings.replica_options, options.signing)
    try:
        await membership.join()
        async with background.kept("replicas", membership.run):
            yield membership
    finally:
        await membership.close()


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

"""Prometheus metrics, in one registry per app. Labels never contain users or items."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from typing import Literal, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.registry import Collector

from model.degradation import DegradationKind
from model.engine.protocol import Timings
from service.observability.metrics.exposition import Exposition, expose
from service.observability.metrics.families import (
    EngineFamilies,
    FeatureFamilies,
    HistoryFamilies,
    JournalFamilies,
    ProcessFamilies,
    RequestFamilies,
    VersionFamilies,
    WorkerFamilies,
)
from service.observability.metrics.summed import WithWorkers, WorkerMetrics
from service.problem_documents import REJECTION_REASONS

Role = Literal["stable", "canary", "shadow"]
JournalBreak = Literal["behind", "lost", "forked", "other"]
EventOutcome = Literal["stored", "duplicate", "too_old", "refused"]
Steering = Literal["boost", "domain_boosts", "max_per", "rotate"]
LookupOutcome = Literal["found", "missing", "unavailable"]
HistoryOperation = Literal["add", "read", "erase", "popular", "show", "shown"]

LANES = ("ranking", "text")
BACKGROUND_TASKS = (
    "accept",
    "admin_port",
    "call",
    "descriptors",
    "end",
    "event_loop",
    "files",
    "free_slot",
    "histories",
    "histories_of_workers",
    "history_watcher",
    "journal",
    "lane-ranking",
    "lane-text",
    "listening",
    "loop_lag",
    "ray_metrics",
    "redis_watcher",
    "replicas",
    "retire",
    "shadow",
    "shown",
    "status",
    "versions",
    "warm_up",
)
DescriptorEffect = Literal["idle_closed", "refused", "exhausted"]
DESCRIPTOR_EFFECTS: tuple[DescriptorEffect, ...] = ("idle_closed", "refused", "exhausted")


NOT_SERVED = "(not served)"
"""Label for domains that clients name and nobody serves; a label of their own would let them grow without limit."""


Samples: TypeAlias = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels."""


class Metrics:
    """All metrics of the service.

    Counters with known labels start at 0: Prometheus misses the first increment of a series that first appears at 1.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = RequestFamilies(self._registry)
        self._process = ProcessFamilies(self._registry)
        self._engine = EngineFamilies(self._registry)
        self._features = FeatureFamilies(self._registry)
        self._versions = VersionFamilies(self._registry)
        self._journal = JournalFamilies(self._registry)
        self._histories = HistoryFamilies(self._registry)
        self._workers = WorkerFamilies(self._registry)
        self._families: Collector = self._registry
        self._redis_of_workers: Callable[[], Iterable[bool | None]] = tuple
        self._bundles: dict[str, str] = {}
        # Series that every request updates: looking one up by its labels costs more than updating it.
        self._latency_of = cache(self._requests.latency.labels)
        self._requests_of = cache(self._requests.requests.labels)
        self._fetch_of = cache(self._features.fetch.labels)
        self._hits_of = cache(self._features.hits.labels)
        self._misses_of = cache(self._features.misses.labels)
        self._version_requests_of = cache(self._versions.requests.labels)
        self._version_latency_of = cache(self._versions.latency.labels)
        ProcessCollector(registry=self._registry)
        self._begin_at_0()

    def _begin_at_0(self) -> None:
        """Series whose labels are known have a value before anything is counted."""
        known: tuple[tuple[Counter | Histogram, Iterable[str]], ...] = (
            (self._requests.rejected, REJECTION_REASONS),
            (self._requests.degraded, DegradationKind),
            (self._requests.steered, get_args(Steering)),
            (self._journal.breaks, get_args(JournalBreak)),
            (self._histories.events, get_args(EventOutcome)),
            (self._histories.lookups, get_args(LookupOutcome)),
            (self._histories.time, get_args(HistoryOperation)),
            (self._engine.busy, LANES),
            (self._engine.split_batches, LANES),
            (self._process.background_failures, BACKGROUND_TASKS),
            (self._process.descriptor_shortages, DESCRIPTOR_EFFECTS),
        )
        for family, labels in known:
            for label in labels:
                family.labels(label)

    def render(self, accept: str = "") -> Exposition:
        """All metrics in the format that the Accept header requests."""
        return expose(self._families, accept)

    def samples(self) -> Samples:
        """The present value of every series, with what workers have counted."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self._families.collect()
            for sample in family.samples
        }

    # Requests

    def observe_request(
        self, route: str, domain: str, status: int, duration_s: float, trace_id: str | None = None
    ) -> None:
        """Status 429 is not counted in the latency. The `trace_id` of a sampled trace becomes the exemplar."""
        exemplar = None if trace_id is None else {"trace_id": trace_id}
        if status != HTTPStatus.TOO_MANY_REQUESTS:
            self._latency_of(route, domain).observe(duration_s, exemplar)
        self._requests_of(route, domain, status).inc()

    def observe_bulk(self, num_requests: int) -> None:
        """A body with this many requests was admitted."""
        self._requests.bulk_size.observe(num_requests)

    def count_bulk_request(self, route: str, domain: str, status: int) -> None:
        """Count one request of a body with many as if it had come alone, though without its latency."""
        self._requests_of(route, domain, status).inc()

    def count_rejected(self, reason: str) -> None:
        self._requests.rejected.labels(reason).inc()

    def count_degraded(self, kinds: Iterable[DegradationKind]) -> None:
        for kind in kinds:
            self._requests.degraded.labels(kind).inc()

    def count_invalid_items(self, num_items: int) -> None:
        self._requests.invalid_items.inc(num_items)

    def observe_exact_prefix(self, exact_prefix: int) -> None:
        self._requests.exact_prefix.observe(exact_prefix)

    def count_reduced_beams(self) -> None:
        """Count a request searched with fewer beams than requested."""
        self._requests.num_beams_reduced.inc()

    def count_steered(self, by: Steering) -> None:
        """Count an answer whose list was steered."""
        self._requests.steered.labels(by).inc()

    # The process

    def count_background_failure(self, task: str) -> None:
        """Count a failure of a background task, which may be restarted."""
        self._process.background_failures.labels(task).inc()

    def count_dropped_log_lines(self, num_lines: int) -> None:
        self._process.log_lines_dropped.inc(num_lines)

    def count_descriptor_shortage(self, effect: DescriptorEffect) -> None:
        """Count what a shortage of file descriptors led to."""
        self._process.descriptor_shortages.labels(effect).inc()

    # Worker processes

    def include(self, workers: WorkerMetrics) -> None:
        """Render the sums over this process and the workers from now on."""
        self._families = WithWorkers(self._registry, workers)

    def watch_workers(self, num_live: Callable[[], int]) -> None:
        self._workers.live.set_function(lambda: float(num_live()))

    def count_worker_restart(self) -> None:
        """Count a worker that was started in place of one that ended."""
        self._workers.restarts.inc()

    # The engine

    def watch_lanes(self, num_running: Callable[[], int], num_waiting: Callable[[], int]) -> None:
        self._engine.running.set_function(lambda: float(num_running()))
        self._engine.waiting.set_function(lambda: float(num_waiting()))

    def watch_gpu(self, device: str) -> None:
        """Export the memory of a device such as "cuda:0"; does nothing for "cpu"."""
        if device.startswith("cuda"):
            from service.observability.metrics.gpu import GpuMemory  # noqa: PLC0415  # imports torch

            self._registry.register(GpuMemory(device))

    def observe_batch(self, num_rows: int) -> None:
        self._engine.batch_size.observe(num_rows)

    def observe_busy(self, lane: str, duration_s: float) -> None:
        """Add engine time of a lane; called after each batch or step, so that saturation shows without delay."""
        self._engine.busy.labels(lane).inc(duration_s)

    def count_split_batch(self, lane: str) -> None:
        """Count a batch that did not fit into memory and was split."""
        self._engine.split_batches.labels(lane).inc()

    def observe_stages(self, queue_s: float | None, timings: Timings) -> None:
        """One request's queue time, unless it gave way to others, and the engine times of its batch."""
        if queue_s is not None:
            self._engine.queue_time.observe(queue_s)
        self._engine.encode_time.observe(timings.encode_s)
        self._engine.decode_time.observe(timings.decode_s)

    # Image embeddings

    def observe_features(self, tier: str, num_present: int, num_missing: int, duration_s: float) -> None:
        self._fetch_of(tier).observe(duration_s)
        self._hits_of(tier).inc(num_present)
        self._misses_of(tier).inc(num_missing)

    def count_rejected_features(self, num_values: int) -> None:
        self._features.rejected.inc(num_values)

    def watch_redis(self, is_up: Callable[[], bool]) -> None:
        """Called only if Redis is configured."""
        self._features.redis_configured.set(1)
        self._features.redis_up.set_function(lambda: float(is_up() and False not in self._redis_of_workers()))

    def watch_redis_of_workers(self, are_up: Callable[[], Iterable[bool | None]]) -> None:
        """Redis is up if it answers each worker, too; None is a worker that has not said yet."""
        self._redis_of_workers = are_up

    # The journal

    def count_journal_break(self, kind: JournalBreak) -> None:
        self._journal.breaks.labels(kind).inc()

    def watch_journal(
        self, is_broken: Callable[[], bool], num_unread: Callable[[], int], behind_s: Callable[[], float]
    ) -> None:
        self._journal.broken.set_function(lambda: float(is_broken()))
        self._journal.behind.set_function(behind_s)
        self._journal.unread.set_function(lambda: float(num_unread()))

    # Histories

    def count_events(self, outcome: EventOutcome, num_events: int = 1) -> None:
        self._histories.events.labels(outcome).inc(num_events)

    def count_lookup(self, outcome: LookupOutcome) -> None:
        """Count a recommendation that needed a stored history."""
        self._histories.lookups.labels(outcome).inc()

    @contextmanager
    def timed_history(self, operation: HistoryOperation) -> Iterator[None]:
        """Observe how long the store takes for the block."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self._histories.time.labels(operation).observe(time.perf_counter() - started_at)

    def watch_histories(self, is_up: Callable[[], bool]) -> None:
        """Called only if histories are kept."""
        self._histories.configured.set(1)
        self._histories.up.set_function(lambda: float(is_up()))

    # Versions

    def set_bundle(self, domain: str, bundle_hash: str) -> None:
        """Set the bundle from which a domain is served."""
        before = self._bundles.get(domain)
        if before not in {None, bundle_hash}:
            self._versions.bundle_info.remove(domain, before)
        if before is None:
            self._versions.reload_failures.labels(domain)
            self._versions.last_reload_success.labels(domain).set(1)
        self._bundles[domain] = bundle_hash
        self._versions.bundle_info.labels(domain, bundle_hash).set(1)

    def drop_bundle(self, domain: str) -> None:
        """Remove a domain that is no longer served."""
        bundle_hash = self._bundles.pop(domain, None)
        if bundle_hash is not None:
            self._versions.bundle_info.remove(domain, bundle_hash)
            self._versions.last_reload_success.remove(domain)

    def set_epoch_started(self) -> None:
        """Set the time of the last change of a served version to now."""
        self._versions.epoch_started.set_to_current_time()

    def count_reload(self, domain: str, *, ok: bool) -> None:
        """Count the outcome of a load for a domain. Failures for names that are not served share a label."""
        if not ok and domain not in self._bundles:
            self._versions.reload_failures.labels(NOT_SERVED).inc()
            return
        failures = self._versions.reload_failures.labels(domain)
        if not ok:
            failures.inc()
        self._versions.last_reload_success.labels(domain).set(float(ok))

    def observe_version(self, domain: str, version: str, role: Role, duration_s: float) -> None:
        """Count a request that a version of a domain answered."""
        self._version_requests_of(domain, version, role).inc()
        self._version_latency_of(domain, version, role).observe(duration_s)

    def observe_shadow_overlap(self, domain: str, ratio: float) -> None:
        """`ratio`, 0 to 1, of the stable version's items that the shadow version also returned."""
        self._versions.shadow_overlap.labels(domain).observe(ratio)

"""Metric families. Names, labels and buckets are part of the service's interface (docs/operations.md)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FETCH_BUCKETS = (0.00002, 0.00005, 0.0001, 0.00025, *STAGE_BUCKETS)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PREFIX_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100)
SHARE_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class RequestFamilies:
    """Requests: latency, status, rejections, degradation."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.latency = Histogram(
            "vip5_e2e_request_latency_seconds",
            "Time from a request's arrival to the end of its response, except for requests rejected with status 429.",
            ["route", "domain"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "vip5_requests",
            "Requests by response status; those of a batch also each by its own.",
            ["route", "domain", "status"],
            registry=registry,
        )
        self.bulk_size = Histogram(
            "vip5_requests_per_body",
            "Number of admitted requests in each body of a batch route.",
            buckets=ROW_BUCKETS,
            registry=registry,
        )
        self.rejected = Counter(
            "vip5_requests_rejected", "Requests rejected for load, size or time.", ["reason"], registry=registry
        )
        self.degraded = Counter(
            "vip5_degraded", "Degraded answers by kind of degradation.", ["kind"], registry=registry
        )
        self.invalid_items = Counter(
            "vip5_invalid_items",
            "Ineligible items that the engine returned; they were removed from answers.",
            registry=registry,
        )
        self.exact_prefix = Histogram(
            "vip5_beam_exact_prefix",
            "Number of leading items proven to be the true top of the catalog.",
            buckets=PREFIX_BUCKETS,
            registry=registry,
        )
        self.steered = Counter(
            "vip5_steered_requests",
            "Answered requests for items by what steered their lists: boost, domain_boosts, max_per or rotate.",
            ["by"],
            registry=registry,
        )
        self.num_beams_reduced = Counter(
            "vip5_num_beams_reduced",
            "Requests searched with fewer beams than requested, to reduce load.",
            registry=registry,
        )


class ProcessFamilies:
    """Background tasks, the log, and file descriptors."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.background_failures = Counter(
            "vip5_background_failures",
            "Failures of background tasks; those that must last are restarted.",
            ["task"],
            registry=registry,
        )
        self.log_lines_dropped = Counter(
            "vip5_log_lines_dropped",
            "Log lines dropped because standard output was not read, or could not be written.",
            registry=registry,
        )
        self.descriptor_shortages = Counter(
            "vip5_descriptor_shortages",
            "Connections closed or refused, and failures to open a file, because file descriptors were short.",
            ["effect"],
            registry=registry,
        )


class WorkerFamilies:
    """Worker processes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.live = Gauge(
            "vip5_workers", "Worker processes that are running; 0 if there is one process only.", registry=registry
        )
        self.restarts = Counter(
            "vip5_worker_restarts",
            "Worker processes started in place of one that ended.",
            registry=registry,
        )


class EngineFamilies:
    """Queue, batches and engine time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_time = Histogram(
            "vip5_request_queue_time_seconds",
            "Time that a request waits in the queue.",
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.encode_time = Histogram(
            "vip5_request_encode_time_seconds",
            "Encoder time of a request's batch.",
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.decode_time = Histogram(
            "vip5_request_decode_time_seconds",
            "Decoder time of a request's batch.",
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.running = Gauge("vip5_num_requests_running", "Requests that the engine is processing.", registry=registry)
        self.waiting = Gauge("vip5_num_requests_waiting", "Requests waiting in the queues.", registry=registry)
        self.batch_size = Histogram(
            "vip5_batch_size", "Number of prompts per batch.", buckets=ROW_BUCKETS, registry=registry
        )
        self.busy = Counter(
            "vip5_engine_busy_seconds", "Time that the engine was busy, by lane.", ["lane"], registry=registry
        )
        self.split_batches = Counter(
            "vip5_split_batches", "Batches split because they did not fit into memory.", ["lane"], registry=registry
        )


class FeatureFamilies:
    """Image embeddings and Redis."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.fetch = Histogram(
            "vip5_feature_fetch_seconds",
            "Time to look up a request's image embeddings in one tier.",
            ["tier"],
            buckets=FETCH_BUCKETS,
            registry=registry,
        )
        self.hits = Counter("vip5_feature_cache_hits", "Image embeddings found in a tier.", ["tier"], registry=registry)
        self.misses = Counter(
            "vip5_feature_cache_misses", "Image embeddings not found in a tier.", ["tier"], registry=registry
        )
        self.rejected = Counter(
            "vip5_feature_values_rejected",
            "Values in Redis rejected because they are not valid embeddings.",
            registry=registry,
        )
        self.redis_configured = Gauge(
            "vip5_redis_configured",
            "Whether the service is configured to read image embeddings from Redis.",
            registry=registry,
        )
        self.redis_up = Gauge("vip5_redis_up", "Whether Redis responds; 0 if none is configured.", registry=registry)


class VersionFamilies:
    """Versions of domains, shadow comparison, bundles and reloads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["domain", "version", "role"]
        self.requests = Counter(
            "vip5_version_requests", "Requests answered by each version of a domain.", labels, registry=registry
        )
        self.latency = Histogram(
            "vip5_version_latency_seconds",
            "Latency of each version of a domain.",
            labels,
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.shadow_overlap = Histogram(
            "vip5_shadow_overlap_ratio",
            "Share of the stable version's items that the shadow version also returned.",
            ["domain"],
            buckets=SHARE_BUCKETS,
            registry=registry,
        )
        self.bundle_info = Gauge(
            "vip5_bundle_info",
            "The bundle from which a domain is served; always 1.",
            ["domain", "hash"],
            registry=registry,
        )
        self.epoch_started = Gauge(
            "vip5_epoch_started_timestamp_seconds",
            "Unix time of the last change of a served version.",
            registry=registry,
        )
        self.reload_failures = Counter(
            "vip5_reload_failures", "Failed loads of bundles for a domain.", ["domain"], registry=registry
        )
        self.last_reload_success = Gauge(
            "vip5_last_reload_success",
            "Whether the last load of a bundle for a domain succeeded.",
            ["domain"],
            registry=registry,
        )


class JournalFamilies:
    """The journal of changes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.breaks = Counter(
            "vip5_journal_breaks",
            "Times that the journal in Redis was not the one that this replica had followed: behind (which was put "
            "back), lost, forked or other (an operator decides).",
            ["kind"],
            registry=registry,
        )
        self.broken = Gauge(
            "vip5_journal_broken",
            "Whether changes are refused because the journal in Redis is another one, damaged or incomplete.",
            registry=registry,
        )
        self.unread = Gauge(
            "vip5_journal_unread_entries",
            "Entries of the journal that this release cannot read; they are kept and not served.",
            registry=registry,
        )
        self.behind = Gauge(
            "vip5_journal_behind_seconds",
            "Time since this replica served all that the journal in Redis held; about 0 while it follows.",
            registry=registry,
        )


class HistoryFamilies:
    """Users' histories."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "vip5_events",
            "Events of users by outcome: stored, duplicate, too_old, or refused because the store was not available.",
            ["outcome"],
            registry=registry,
        )
        self.lookups = Counter(
            "vip5_history_lookups",
            "Recommendations that needed a stored history, by outcome: found, missing or unavailable.",
            ["outcome"],
            registry=registry,
        )
        self.time = Histogram(
            "vip5_history_seconds",
            "Time that the store of histories took, by operation.",
            ["operation"],
            buckets=FETCH_BUCKETS,
            registry=registry,
        )
        self.configured = Gauge(
            "vip5_history_store_configured", "Whether the service keeps users' histories.", registry=registry
        )
        self.up = Gauge(
            "vip5_history_store_up",
            "Whether the store of histories responds; 0 if none is configured.",
            registry=registry,
        )

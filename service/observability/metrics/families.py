"""The families of metrics: their names, labels and buckets are part of the service's interface (docs/operations.md)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FETCH_BUCKETS = (0.00002, 0.00005, 0.0001, 0.00025, *STAGE_BUCKETS)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PREFIX_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100)
SHARE_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class RequestFamilies:
    """What came in, how it ended, and where its time went."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.latency = Histogram(
            "vip5_e2e_request_latency_seconds",
            "Time from a request's arrival to the end of its answer; without those refused for load.",
            ["route", "domain"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.requests = Counter("vip5_requests", "Requests answered.", ["route", "domain", "status"], registry=registry)
        self.rejected = Counter(
            "vip5_requests_rejected", "Requests refused for load, size or time.", ["reason"], registry=registry
        )
        self.degraded = Counter("vip5_degraded", "Answers that were degraded.", ["kind"], registry=registry)
        self.invalid_items = Counter(
            "vip5_invalid_items", "Items found that were not eligible, and dropped.", registry=registry
        )
        self.exact_prefix = Histogram(
            "vip5_beam_exact_prefix",
            "Leading items proven to be the true top.",
            buckets=PREFIX_BUCKETS,
            registry=registry,
        )
        self.num_beams_reduced = Counter(
            "vip5_num_beams_reduced", "Requests searched with fewer beams than they asked for.", registry=registry
        )


class EngineFamilies:
    """The queue, the batches and the engine's time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_time = Histogram(
            "vip5_request_queue_time_seconds", "Time in the queue.", buckets=STAGE_BUCKETS, registry=registry
        )
        self.encode_time = Histogram(
            "vip5_request_encode_time_seconds", "Time of the encoder.", buckets=STAGE_BUCKETS, registry=registry
        )
        self.decode_time = Histogram(
            "vip5_request_decode_time_seconds", "Time of the decoder.", buckets=STAGE_BUCKETS, registry=registry
        )
        self.running = Gauge("vip5_num_requests_running", "Requests in the engine.", registry=registry)
        self.waiting = Gauge("vip5_num_requests_waiting", "Requests in the queues.", registry=registry)
        self.batch_size = Histogram("vip5_batch_size", "Prompts in a batch.", buckets=ROW_BUCKETS, registry=registry)
        self.busy = Counter(
            "vip5_engine_busy_seconds", "Time in which a lane's engine was at work.", ["lane"], registry=registry
        )
        self.split_batches = Counter(
            "vip5_split_batches", "Batches that were run in halves for want of memory.", ["lane"], registry=registry
        )


class FeatureFamilies:
    """Image embeddings and the Redis that holds them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.fetch = Histogram(
            "vip5_feature_fetch_seconds",
            "Time to look a request's image embeddings up in one tier.",
            ["tier"],
            buckets=FETCH_BUCKETS,
            registry=registry,
        )
        self.hits = Counter("vip5_feature_cache_hits", "Image embeddings that were there.", ["tier"], registry=registry)
        self.misses = Counter(
            "vip5_feature_cache_misses", "Image embeddings that were missing.", ["tier"], registry=registry
        )
        self.rejected = Counter(
            "vip5_feature_values_rejected",
            "Values in Redis that were no embeddings of what was asked.",
            registry=registry,
        )
        self.redis_configured = Gauge(
            "vip5_redis_configured", "Whether image embeddings are to come from Redis.", registry=registry
        )
        self.redis_up = Gauge("vip5_redis_up", "Whether Redis answers; 0 where none is configured.", registry=registry)


class VersionFamilies:
    """What is served, in which version, and how versions compare."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["domain", "version", "role"]
        self.requests = Counter(
            "vip5_version_requests", "Requests answered by a version of a domain.", labels, registry=registry
        )
        self.latency = Histogram(
            "vip5_version_latency_seconds",
            "Time in which a version of a domain answered.",
            labels,
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.shadow_overlap = Histogram(
            "vip5_shadow_overlap_ratio",
            "Share of the stable version's items that the shadow returned too.",
            ["domain"],
            buckets=SHARE_BUCKETS,
            registry=registry,
        )
        self.bundle_info = Gauge("vip5_bundle_info", "What is served.", ["domain", "hash"], registry=registry)
        self.epoch_started = Gauge(
            "vip5_epoch_started_timestamp_seconds", "When what is served was last replaced.", registry=registry
        )
        self.reload_failures = Counter(
            "vip5_reload_failures", "Bundles of a domain that were refused or failed.", ["domain"], registry=registry
        )
        self.last_reload_success = Gauge(
            "vip5_last_reload_success", "Whether a domain's last load succeeded.", ["domain"], registry=registry
        )

"""Prometheus metrics, in a registry of their own for each app. No user and no item is ever in a label."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model.engine.protocol import Timings

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FETCH_BUCKETS = (0.00002, 0.00005, 0.0001, 0.00025, *STAGE_BUCKETS)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PREFIX_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100)


class Metrics:
    """Everything that the service counts; names and labels are part of its interface."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._latency = Histogram(
            "vip5_e2e_request_latency_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["route", "domain"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._requests = Counter(
            "vip5_requests", "Requests answered.", ["route", "domain", "status"], registry=registry
        )
        self._rejected = Counter(
            "vip5_requests_rejected", "Requests refused for load, size or time.", ["reason"], registry=registry
        )
        self._queue_time = Histogram(
            "vip5_request_queue_time_seconds", "Time in the queue.", buckets=STAGE_BUCKETS, registry=registry
        )
        self._feature_fetch = Histogram(
            "vip5_feature_fetch_seconds",
            "Time to look a request's image embeddings up in one tier.",
            ["tier"],
            buckets=FETCH_BUCKETS,
            registry=registry,
        )
        self._encode_time = Histogram(
            "vip5_request_encode_time_seconds", "Time of the encoder.", buckets=STAGE_BUCKETS, registry=registry
        )
        self._decode_time = Histogram(
            "vip5_request_decode_time_seconds", "Time of the decoder.", buckets=STAGE_BUCKETS, registry=registry
        )
        self._running = Gauge("vip5_num_requests_running", "Requests in the engine.", registry=registry)
        self._waiting = Gauge("vip5_num_requests_waiting", "Requests in the queues.", registry=registry)
        self._batch_size = Histogram("vip5_batch_size", "Prompts in a batch.", buckets=ROW_BUCKETS, registry=registry)
        self._hits = Counter(
            "vip5_feature_cache_hits", "Image embeddings that were there.", ["tier"], registry=registry
        )
        self._misses = Counter(
            "vip5_feature_cache_misses", "Image embeddings that were missing.", ["tier"], registry=registry
        )
        self._rejected_features = Counter(
            "vip5_feature_values_rejected",
            "Values in Redis that were no embeddings of what was asked.",
            registry=registry,
        )
        self._redis_up = Gauge("vip5_redis_up", "Whether Redis answers; 0 where none is configured.", registry=registry)
        self._degraded = Counter("vip5_degraded", "Answers that were degraded.", ["kind"], registry=registry)
        self._invalid_items = Counter(
            "vip5_invalid_items", "Items found that were not eligible, and dropped.", registry=registry
        )
        self._exact_prefix = Histogram(
            "vip5_beam_exact_prefix",
            "Leading items proven to be the true top.",
            buckets=PREFIX_BUCKETS,
            registry=registry,
        )
        self._bundle_info = Gauge("vip5_bundle_info", "What is served.", ["domain", "hash"], registry=registry)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def watch_lanes(self, num_running: Callable[[], int], num_waiting: Callable[[], int]) -> None:
        self._running.set_function(lambda: float(num_running()))
        self._waiting.set_function(lambda: float(num_waiting()))

    def set_bundle(self, domain: str, bundle_hash: str) -> None:
        self._bundle_info.labels(domain, bundle_hash).set(1)

    def observe_request(self, route: str, domain: str, status: int, duration_s: float) -> None:
        self._latency.labels(route, domain).observe(duration_s)
        self._requests.labels(route, domain, str(status)).inc()

    def count_rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def observe_batch(self, num_rows: int) -> None:
        self._batch_size.observe(num_rows)

    def observe_stages(self, queue_s: float, timings: Timings) -> None:
        """One request's time in the queue, and the time of the batch that it was in."""
        self._queue_time.observe(queue_s)
        self._encode_time.observe(timings.encode_s)
        self._decode_time.observe(timings.decode_s)

    def observe_features(self, tier: str, num_present: int, num_missing: int, duration_s: float) -> None:
        self._feature_fetch.labels(tier).observe(duration_s)
        self._hits.labels(tier).inc(num_present)
        self._misses.labels(tier).inc(num_missing)

    def count_rejected_features(self, num_values: int) -> None:
        self._rejected_features.inc(num_values)

    def watch_redis(self, is_up: Callable[[], bool]) -> None:
        self._redis_up.set_function(lambda: float(is_up()))

    def observe_exact_prefix(self, exact_prefix: int) -> None:
        self._exact_prefix.observe(exact_prefix)

    def count_degraded(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            self._degraded.labels(kind).inc()

    def count_invalid_items(self, num_items: int) -> None:
        self._invalid_items.inc(num_items)

"""Rows about embeddings, answer quality, versions, bundles and the machine."""

from __future__ import annotations

from deploy.grafana.panels import (
    RATE,
    SUCCEEDED,
    Limit,
    PanelSpec,
    Query,
    RowSpec,
    increase,
    mean,
    quantile,
    rate,
    series,
)

UNFILLED, LIMITED = 'kind="limits_unfilled"', 'by="max_per"'
HITS = rate("vip5_feature_cache_hits_total", "tier")

FEATURES = RowSpec(
    "Image embeddings",
    (
        PanelSpec(
            "Hits by tier",
            "Share of requested embeddings that a tier contains. Misses go to the next tier.",
            "percentunit",
            (
                Query(
                    f"{HITS} / ({HITS} + {rate('vip5_feature_cache_misses_total', 'tier')})",
                    "{{tier}}",
                ),
            ),
            largest=1.0,
        ),
        PanelSpec(
            "Redis up",
            "1 if Redis responds, 0 if it does not or none is configured.",
            "short",
            (Query(series("vip5_redis_up"), "{{instance}}"),),
            Limit(0.5, is_floor=True),
            largest=1.0,
        ),
        PanelSpec(
            "Rejected values",
            "Values in Redis per second rejected because they are not valid embeddings.",
            "short",
            (Query(rate("vip5_feature_values_rejected_total", ""), "rejected"),),
        ),
    ),
)

QUALITY = RowSpec(
    "Answer quality",
    (
        PanelSpec(
            "Degraded answers",
            "Share of answers by kind of degradation; one answer may have several kinds.",
            "percentunit",
            (
                Query(
                    f"{rate('vip5_degraded_total', 'kind')} / on () group_left"
                    f" {rate('vip5_requests_total', '', SUCCEEDED, is_whole=True)}",
                    "{{kind}}",
                ),
            ),
            Limit(0.1),
            largest=1.0,
        ),
        PanelSpec(
            "Proven items",
            "Number of leading items of an answer proven to be the true top of the catalog under the model.",
            "short",
            (
                Query(mean("vip5_beam_exact_prefix"), "mean"),
                Query(quantile(0.1, "vip5_beam_exact_prefix"), "p10"),
            ),
        ),
        PanelSpec(
            "Steered answers",
            "Share of answered requests for items whose list a boost of the request or of the domain, max_per or rotate"
            " steered.",
            "percentunit",
            (
                Query(
                    f"{rate('vip5_steered_requests_total', 'by')} / on () group_left"
                    f" {rate('vip5_requests_total', '', SUCCEEDED, is_whole=True)}",
                    "{{by}}",
                ),
            ),
            largest=1.0,
        ),
        PanelSpec(
            "Lists that max_per left short",
            "Share of the answers with max_per that have fewer than k items, because their beams held too few.",
            "percentunit",
            (
                Query(
                    f"{rate('vip5_degraded_total', '', UNFILLED)} / {rate('vip5_steered_requests_total', '', LIMITED)}",
                    "short",
                ),
            ),
            Limit(0.5),
            largest=1.0,
        ),
        PanelSpec(
            "Events",
            "Events of users per second by outcome: stored, sent before, too old, or refused because the store of"
            " histories did not answer.",
            "short",
            (Query(rate("vip5_events_total", "outcome"), "{{outcome}}"),),
        ),
        PanelSpec(
            "Stored histories",
            "Recommendations per second that needed a stored history: it was found, the user had none, or the store did"
            " not answer.",
            "short",
            (Query(rate("vip5_history_lookups_total", "outcome"), "{{outcome}}"),),
        ),
        PanelSpec(
            "History time p95",
            "95 % of the operations of the store of histories take at most this time.",
            "s",
            (Query(quantile(0.95, "vip5_history_seconds", "operation"), "{{operation}}"),),
        ),
        PanelSpec(
            "History store up",
            "1 if histories can be read and events kept, 0 if they cannot or none are kept.",
            "short",
            (
                Query(series("vip5_history_store_up"), "{{instance}}"),
                Query(series("vip5_history_store_configured"), "configured: {{instance}}"),
            ),
            largest=1.0,
        ),
        PanelSpec(
            "Invalid items",
            "Ineligible items that the engine returned in the last day, removed from answers. Must be 0.",
            "short",
            (Query(increase("vip5_invalid_items_total", "1d"), "removed"),),
            Limit(1),
            form="number",
        ),
    ),
)

VERSIONS = RowSpec(
    "Versions",
    (
        PanelSpec(
            "Requests by version",
            "Requests per second answered by each version. Answers of shadow versions are discarded.",
            "reqps",
            (
                Query(
                    rate("vip5_version_requests_total", "domain, version, role"),
                    "{{domain}} {{role}} {{version}}",
                ),
            ),
        ),
        PanelSpec(
            "Latency p95 by version",
            "95 % of a version's answers complete within this time.",
            "s",
            (
                Query(
                    quantile(0.95, "vip5_version_latency_seconds", "domain, version, role"),
                    "{{domain}} {{role}} {{version}}",
                ),
            ),
            Limit(0.5),
        ),
        PanelSpec(
            "Shadow agreement",
            "Mean share of the stable version's items that the shadow version also returns.",
            "percentunit",
            (Query(mean("vip5_shadow_overlap_ratio", "domain"), "{{domain}}"),),
            largest=1.0,
        ),
    ),
)

BUNDLES = RowSpec(
    "Bundles",
    (
        PanelSpec(
            "Replicas by bundle",
            "Replicas per domain and bundle. Two bundles for a long time mean that a replica lags behind.",
            "short",
            (
                Query(
                    f"count by (domain, version) (label_replace({series('vip5_bundle_info')},"
                    ' "version", "$1", "hash", "(.{12}).*"))',
                    "{{domain}} {{version}}",
                ),
            ),
        ),
        PanelSpec(
            "Time since the last change",
            "Time since a replica last changed a served version.",
            "s",
            (Query(f"time() - {series('vip5_epoch_started_timestamp_seconds')}", "{{instance}}"),),
            form="number",
        ),
        PanelSpec(
            "Failed loads",
            "Bundles that failed to load in the last hour.",
            "short",
            (Query(increase("vip5_reload_failures_total", "1h", "domain"), "{{domain}}"),),
            Limit(1),
        ),
        PanelSpec(
            "Behind the journal",
            "Time since each replica last served all that the journal in Redis holds. About 0 while it follows.",
            "s",
            (Query(series("vip5_journal_behind_seconds"), "{{instance}}"),),
            Limit(30),
        ),
        PanelSpec(
            "Journal faults",
            "Replicas that refuse changes because of the journal, entries that they cannot read, breaks in an hour.",
            "short",
            (
                Query(f"sum({series('vip5_journal_broken')})", "replicas that refuse changes"),
                Query(f"max({series('vip5_journal_unread_entries')})", "unread entries"),
                Query(increase("vip5_journal_breaks_total", "1h", "kind"), "{{kind}}"),
            ),
            Limit(1),
        ),
    ),
)

MACHINE = RowSpec(
    "Machine",
    (
        PanelSpec(
            "GPU memory",
            "Used by tensors, reserved by torch's allocator, and total. Empty if the engine runs on a CPU.",
            "bytes",
            (Query(series("vip5_gpu_memory_bytes"), "{{instance}} {{kind}}"),),
        ),
        PanelSpec(
            "Process memory",
            "Resident memory, mostly weights and tries; pages that processes share count in each of them.",
            "bytes",
            (Query(series("process_resident_memory_bytes"), "{{instance}}"),),
        ),
        PanelSpec(
            "CPU",
            "CPU cores used by all processes of the service.",
            "short",
            (Query(f"rate({series('process_cpu_seconds_total')}[{RATE}])", "{{instance}}"),),
        ),
        PanelSpec(
            "Open files",
            "Share of the processes' file descriptor limits in use; at 1, new connections fail.",
            "percentunit",
            (
                Query(
                    f"{series('process_open_fds')} / ({series('process_max_fds')} * (1 + {series('vip5_workers')}))",
                    "{{instance}}",
                ),
            ),
            Limit(0.8),
            largest=1.0,
        ),
        PanelSpec(
            "Background failures",
            "Failures of background tasks in the last hour. The service restarts those that must last.",
            "short",
            (Query(increase("vip5_background_failures_total", "1h", "task"), "{{task}}"),),
            Limit(1),
        ),
        PanelSpec(
            "Lost log lines and connections",
            "Per second: log lines dropped because nobody reads them, and what a shortage of file descriptors costs.",
            "short",
            (
                Query(rate("vip5_log_lines_dropped_total", ""), "log lines"),
                Query(rate("vip5_descriptor_shortages_total", "effect"), "{{effect}}"),
            ),
        ),
        PanelSpec(
            "Workers",
            "Worker processes that are running, and those that replaced another in the last hour.",
            "short",
            (
                Query(series("vip5_workers"), "{{instance}}"),
                Query(f"increase({series('vip5_worker_restarts_total')}[1h])", "{{instance}} replaced"),
            ),
        ),
    ),
)

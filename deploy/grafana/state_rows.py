"""Rows about embeddings, answer quality, versions, bundles and the machine."""

from __future__ import annotations

from deploy.grafana.panels import OF_DOMAIN, RATE, SUCCEEDED, Limit, PanelSpec, Query, RowSpec, mean, quantile, rate

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
            "Look-up time p95",
            "95 % of look-ups in a tier take at most this time; one look-up fetches all embeddings of a request.",
            "s",
            (Query(quantile(0.95, "vip5_feature_fetch_seconds", "tier"), "{{tier}}"),),
        ),
        PanelSpec(
            "Redis up",
            "1 if Redis responds, 0 if it does not or none is configured.",
            "short",
            (Query("vip5_redis_up", "{{instance}}"),),
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
                    f" {rate('vip5_requests_total', '', SUCCEEDED)}",
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
            "Invalid items",
            "Ineligible items that the engine returned in the last day, removed from answers. Must be 0.",
            "short",
            (Query("sum(increase(vip5_invalid_items_total[1d]))", "removed"),),
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
                    rate("vip5_version_requests_total", "domain, version, role", OF_DOMAIN),
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
                    quantile(0.95, "vip5_version_latency_seconds", "domain, version, role", OF_DOMAIN),
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
                    'count by (domain, version) (label_replace(vip5_bundle_info{domain=~"$domain"},'
                    ' "version", "$1", "hash", "(.{12}).*"))',
                    "{{domain}} {{version}}",
                ),
            ),
        ),
        PanelSpec(
            "Time since the last change",
            "Time since a replica last changed a served version.",
            "s",
            (Query("time() - vip5_epoch_started_timestamp_seconds", "{{instance}}"),),
            form="number",
        ),
        PanelSpec(
            "Failed loads",
            "Bundles that failed to load in the last hour.",
            "short",
            (Query('sum by (domain) (increase(vip5_reload_failures_total{domain=~"$domain"}[1h]))', "{{domain}}"),),
            Limit(1),
        ),
        PanelSpec(
            "Journal faults",
            "Replicas that refuse changes because of the journal, entries that they cannot read, breaks in an hour.",
            "short",
            (
                Query("sum(vip5_journal_broken)", "replicas that refuse changes"),
                Query("max(vip5_journal_unread_entries)", "unread entries"),
                Query("sum by (kind) (increase(vip5_journal_breaks_total[1h]))", "{{kind}}"),
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
            (Query("vip5_gpu_memory_bytes", "{{instance}} {{kind}}"),),
        ),
        PanelSpec(
            "Process memory",
            "Resident memory, mostly weights and tries; pages that processes share count in each of them.",
            "bytes",
            (Query('process_resident_memory_bytes{job="vip5"}', "{{instance}}"),),
        ),
        PanelSpec(
            "CPU",
            "CPU cores used by all processes of the service.",
            "short",
            (Query(f'rate(process_cpu_seconds_total{{job="vip5"}}[{RATE}])', "{{instance}}"),),
        ),
        PanelSpec(
            "Open files",
            "Share of the processes' file descriptor limits in use; at 1, new connections fail.",
            "percentunit",
            (
                Query(
                    'process_open_fds{job="vip5"} / (process_max_fds{job="vip5"} * (1 + vip5_workers{job="vip5"}))',
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
            (Query("sum by (task) (increase(vip5_background_failures_total[1h]))", "{{task}}"),),
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
                Query('vip5_workers{job="vip5"}', "{{instance}}"),
                Query('increase(vip5_worker_restarts_total{job="vip5"}[1h])', "{{instance}} replaced"),
            ),
        ),
    ),
)

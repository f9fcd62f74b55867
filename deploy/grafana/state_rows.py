"""The rows about what stands behind answers: embeddings, quality, versions, the machine."""

from __future__ import annotations

from deploy.grafana.panels import OF_DOMAIN, RATE, SUCCEEDED, Limit, PanelSpec, Query, RowSpec, mean, quantile, rate

HITS = rate("vip5_feature_cache_hits_total", "tier")

FEATURES = RowSpec(
    "Image embeddings",
    (
        PanelSpec(
            "Hits by tier",
            "Share of the embeddings asked of a tier that it had. What one tier lacks is asked of the next.",
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
            "95 % of look-ups in a tier take no longer; one look-up fetches all embeddings of a request.",
            "s",
            (Query(quantile(0.95, "vip5_feature_fetch_seconds", "tier"), "{{tier}}"),),
        ),
        PanelSpec(
            "Redis answers",
            "1 where Redis answers, 0 where it does not, or where none is configured.",
            "short",
            (Query("vip5_redis_up", "{{instance}}"),),
            Limit(0.5, is_floor=True),
            largest=1.0,
        ),
        PanelSpec(
            "Values refused",
            "Values in Redis per second that were no embeddings of what was asked.",
            "short",
            (Query(rate("vip5_feature_values_rejected_total", ""), "refused"),),
        ),
    ),
)

QUALITY = RowSpec(
    "What answers are worth",
    (
        PanelSpec(
            "Degraded answers",
            "Share of answers that say they are less than they could be, by kind; an answer may be so in several ways.",
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
            "How many leading items of an answer are proven to be the true top of the catalog under the model.",
            "short",
            (
                Query(mean("vip5_beam_exact_prefix"), "mean"),
                Query(quantile(0.1, "vip5_beam_exact_prefix"), "9 in 10 answers have more than"),
            ),
        ),
        PanelSpec(
            "Invalid items",
            "Items found in the last day that were not eligible. They were dropped; there must be none.",
            "short",
            (Query("sum(increase(vip5_invalid_items_total[1d]))", "dropped"),),
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
            "Requests per second that a version answered; a shadow's answers are not given to anybody.",
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
            "95 % of a version's answers are there within this time.",
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
            "Agreement of the shadow",
            "Mean share of the stable version's items that the shadow returns too.",
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
            "Replicas that serve a domain from a bundle. Two bundles for long mean that a replica stays behind.",
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
            "Age of what is served",
            "Time since a replica last replaced what it serves.",
            "s",
            (Query("time() - vip5_epoch_started_timestamp_seconds", "{{instance}}"),),
            form="number",
        ),
        PanelSpec(
            "Failed loads",
            "Bundles that were refused, in the last hour.",
            "short",
            (Query('sum by (domain) (increase(vip5_reload_failures_total{domain=~"$domain"}[1h]))', "{{domain}}"),),
            Limit(1),
        ),
    ),
)

MACHINE = RowSpec(
    "Machine",
    (
        PanelSpec(
            "GPU memory",
            "Used by tensors, reserved by torch's allocator, and in all. Empty where the engine runs on a CPU.",
            "bytes",
            (Query("vip5_gpu_memory_bytes", "{{instance}} {{kind}}"),),
        ),
        PanelSpec(
            "Memory of the process",
            "Resident memory; weights and tries are most of it.",
            "bytes",
            (Query('process_resident_memory_bytes{job="vip5"}', "{{instance}}"),),
        ),
        PanelSpec(
            "CPU",
            "Cores that the process keeps busy.",
            "short",
            (Query(f'rate(process_cpu_seconds_total{{job="vip5"}}[{RATE}])', "{{instance}}"),),
        ),
        PanelSpec(
            "Open files",
            "Share of the files and connections that the system allows the process; at 1 it takes no more.",
            "percentunit",
            (Query('process_open_fds{job="vip5"} / process_max_fds{job="vip5"}', "{{instance}}"),),
            Limit(0.8),
            largest=1.0,
        ),
    ),
)

"""Rows about requests: latency, traffic, batches and queue."""

from __future__ import annotations

from deploy.grafana.panels import (
    FAILED,
    INFERENCE,
    LATENCY,
    OF_DOMAINS,
    RECOMMENDATIONS,
    WITHIN_OBJECTIVE,
    Limit,
    PanelSpec,
    Query,
    RowSpec,
    mean,
    quantile,
    rate,
    series,
)


def _latency(share: float, name: str) -> PanelSpec:
    return PanelSpec(
        f"Latency {name}",
        f"{share:.0%} of requests complete within this time, from arrival to the end of the response.",
        "s",
        (Query(quantile(share, LATENCY, "route, domain", OF_DOMAINS), "{{route}} {{domain}}", has_exemplars=True),),
        Limit(0.5),
    )


LATENCIES = RowSpec(
    "Latency",
    (
        _latency(0.5, "p50"),
        _latency(0.95, "p95"),
        _latency(0.99, "p99"),
        PanelSpec(
            "Recommendations over 0.5 s",
            "The objective allows 1 %; the Vip5LatencyBudgetBurns alerts compare longer windows with it.",
            "percentunit",
            (
                Query(
                    f"1 - {rate(LATENCY + '_bucket', '', WITHIN_OBJECTIVE)}"
                    f" / {rate(LATENCY + '_count', '', RECOMMENDATIONS)}",
                    "slow",
                ),
            ),
            Limit(0.01),
            largest=1.0,
        ),
    ),
)

STAGES = RowSpec(
    "Where the time goes",
    (
        PanelSpec(
            "Mean time of each stage",
            "The stages run in sequence. Encoder and decoder times are those of whole batches.",
            "s",
            (
                Query(mean("vip5_feature_fetch_seconds", "tier"), "features: {{tier}}"),
                Query(mean("vip5_request_queue_time_seconds"), "queue"),
                Query(mean("vip5_request_encode_time_seconds"), "encode"),
                Query(mean("vip5_request_decode_time_seconds"), "decode"),
            ),
            form="stack",
        ),
        PanelSpec(
            "Stages p95",
            "95 % of requests spend at most this time in a stage.",
            "s",
            (
                Query(quantile(0.95, "vip5_feature_fetch_seconds", "tier"), "features: {{tier}}"),
                Query(quantile(0.95, "vip5_request_queue_time_seconds"), "queue"),
                Query(quantile(0.95, "vip5_request_encode_time_seconds"), "encode"),
                Query(quantile(0.95, "vip5_request_decode_time_seconds"), "decode"),
            ),
        ),
    ),
)

TRAFFIC = RowSpec(
    "Traffic",
    (
        PanelSpec(
            "Requests by route",
            "Requests per second, with any status. Those of batches count under the single route, too.",
            "reqps",
            (
                Query(rate("vip5_requests_total", "route, domain", OF_DOMAINS), "{{route}} {{domain}}"),
                Query(rate("vip5_requests_per_body_sum", ""), "in batches"),
            ),
        ),
        PanelSpec(
            "Requests by status",
            "Recommendations and explanations per second. 429 and 503: rejected because of load; 504: too late.",
            "reqps",
            (Query(rate("vip5_requests_total", "status", INFERENCE), "{{status}}"),),
            form="stack",
        ),
        PanelSpec(
            "Error ratio",
            "Share of recommendations and explanations with a status of 500 or above.",
            "percentunit",
            (
                Query(
                    f"({rate('vip5_requests_total', '', FAILED)} or vector(0))"
                    f" / {rate('vip5_requests_total', '', INFERENCE)}",
                    "errors",
                ),
            ),
            Limit(0.01),
            largest=1.0,
        ),
        PanelSpec(
            "Rejected requests",
            "Requests per second rejected for load, size or time.",
            "reqps",
            (Query(rate("vip5_requests_rejected_total", "reason"), "{{reason}}"),),
        ),
    ),
)

ENGINE = RowSpec(
    "Batches and queue",
    (
        PanelSpec(
            "Prompts per batch",
            "Prompts that the engine processes at once; batches grow with load.",
            "short",
            (Query(mean("vip5_batch_size"), "mean"), Query(quantile(0.95, "vip5_batch_size"), "p95")),
        ),
        PanelSpec(
            "Requests waiting and running",
            "Requests in the queues and in the engine, over all replicas.",
            "short",
            (
                Query(f"sum({series('vip5_num_requests_waiting')})", "waiting"),
                Query(f"sum({series('vip5_num_requests_running')})", "running"),
            ),
        ),
        PanelSpec(
            "Engine busy",
            "Share of time in which a lane's engine is busy. Near 1, queues grow without bound.",
            "percentunit",
            (Query(rate("vip5_engine_busy_seconds_total", "instance, lane"), "{{instance}} {{lane}}"),),
            Limit(0.9),
        ),
        PanelSpec(
            "Load reduction",
            "Searches per second with fewer beams than requested, and batches per second split for lack of memory.",
            "short",
            (
                Query(rate("vip5_num_beams_reduced_total", ""), "fewer beams"),
                Query(rate("vip5_split_batches_total", "lane"), "split: {{lane}}"),
            ),
        ),
    ),
)

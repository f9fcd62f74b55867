"""The rows about requests: how fast, how many, what the engine does with them."""

from __future__ import annotations

from deploy.grafana.panels import (
    ASKED,
    CHOSEN,
    FAILED,
    LATENCY,
    QUICK,
    RECOMMENDATIONS,
    Limit,
    PanelSpec,
    Query,
    RowSpec,
    mean,
    quantile,
    rate,
)


def _latency(share: float, name: str) -> PanelSpec:
    return PanelSpec(
        f"Latency {name}",
        f"{share:.0%} of requests are answered within this time, from their arrival to the end of the answer.",
        "s",
        (Query(quantile(share, LATENCY, "route, domain", CHOSEN), "{{route}} {{domain}}"),),
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
            "The objective allows 1 %; the alerts Vip5LatencyBudgetBurns… compare longer times with it.",
            "percentunit",
            (
                Query(
                    f"1 - {rate(LATENCY + '_bucket', '', QUICK)} / {rate(LATENCY + '_count', '', RECOMMENDATIONS)}",
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
            "Image embeddings, queue, encoder and decoder follow each other. The engine's times are of whole batches.",
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
            "95 % of requests spend no more than this in a stage.",
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
            "Requests answered per second, whatever the answer.",
            "reqps",
            (Query(rate("vip5_requests_total", "route, domain", CHOSEN), "{{route}} {{domain}}"),),
        ),
        PanelSpec(
            "Requests by status",
            "Requests for items and texts per second; 429 and 503 are refused for load, 504 is too late.",
            "reqps",
            (Query(rate("vip5_requests_total", "status", ASKED), "{{status}}"),),
            form="stack",
        ),
        PanelSpec(
            "Error ratio",
            "Share of requests for items and texts that were answered with a status of 500 or above.",
            "percentunit",
            (
                Query(
                    f"({rate('vip5_requests_total', '', FAILED)} or vector(0))"
                    f" / {rate('vip5_requests_total', '', ASKED)}",
                    "errors",
                ),
            ),
            Limit(0.01),
            largest=1.0,
        ),
        PanelSpec(
            "Refused requests",
            "Requests refused per second for load, size or time.",
            "reqps",
            (Query(rate("vip5_requests_rejected_total", "reason"), "{{reason}}"),),
        ),
    ),
)

ENGINE = RowSpec(
    "Batches and queue",
    (
        PanelSpec(
            "Prompts in a batch",
            "How many prompts the engine takes at once; large batches are what load is carried by.",
            "short",
            (Query(mean("vip5_batch_size"), "mean"), Query(quantile(0.95, "vip5_batch_size"), "p95")),
        ),
        PanelSpec(
            "Requests waiting and running",
            "In the queues and in the engine, of all replicas.",
            "short",
            (
                Query("sum(vip5_num_requests_waiting)", "waiting"),
                Query("sum(vip5_num_requests_running)", "running"),
            ),
        ),
        PanelSpec(
            "Engine busy",
            "Share of the time in which a lane's engine is at work. Near 1, waiting grows without bound.",
            "percentunit",
            (Query(rate("vip5_engine_busy_seconds_total", "instance, lane"), "{{instance}} {{lane}}"),),
            Limit(0.9),
        ),
        PanelSpec(
            "Relief",
            "Searches per second with fewer beams than asked for, and batches run in halves for want of memory.",
            "short",
            (
                Query(rate("vip5_num_beams_reduced_total", ""), "fewer beams"),
                Query(rate("vip5_split_batches_total", "lane"), "split: {{lane}}"),
            ),
        ),
    ),
)

"""Panel definitions and helpers for their queries. Independent of Grafana's JSON format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

RATE = "$__rate_interval"
OF_DOMAINS = 'domain!=""'
"""Leaves out probes and unknown paths."""
RECOMMENDATIONS = 'route=~"/recommend/[a-z]+"'
WITHIN_OBJECTIVE = 'route=~"/recommend/[a-z]+", le="0.5"'
INFERENCE = 'route=~"/recommend/.*|/explain"'
FAILED = INFERENCE + ', status=~"5.."'
SUCCEEDED = INFERENCE + ', status="200"'
LATENCY = "vip5_e2e_request_latency_seconds"
WITH_DOMAIN = frozenset(
    {
        "vip5_bundle_info",
        LATENCY,
        "vip5_last_reload_success",
        "vip5_reload_failures_total",
        "vip5_requests_total",
        "vip5_shadow_overlap_ratio",
        "vip5_version_latency_seconds",
        "vip5_version_requests_total",
    }
)
"""Metrics with the label `domain`; the others are about whole processes."""
WITH_ROUTE = frozenset({LATENCY, "vip5_requests_total"})


@dataclass(frozen=True)
class Query:
    """PromQL and its legend."""

    expr: str
    legend: str
    has_exemplars: bool = False


@dataclass(frozen=True)
class Limit:
    """The value above which, or below which with `is_floor`, a series is bad."""

    value: float
    is_floor: bool = False


@dataclass(frozen=True)
class PanelSpec:
    """One panel; `unit` is Grafana's name of a unit."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    limit: Limit | None = None
    largest: float | None = None
    form: Literal["lines", "stack", "number"] = "lines"


@dataclass(frozen=True)
class RowSpec:
    """Panels in one row under a title."""

    title: str
    panels: tuple[PanelSpec, ...]


def series(metric: str, labels: str = "", *, is_whole: bool = False) -> str:
    """The metric's series that the dashboard's variables choose.

    `is_whole` leaves out domain and route, for a share of it in which something has neither.
    """
    family = re.sub("_(bucket|sum|count)$", "", metric)
    chosen = ['job=~"$job"', 'instance=~"$instance"']
    if family in WITH_DOMAIN and not is_whole:
        chosen.append('domain=~"$domain"')
    if family in WITH_ROUTE and not is_whole:
        chosen.append('route=~"$route"')
    return f"{metric}{{{', '.join([*chosen, *filter(None, [labels])])}}}"


def rate(metric: str, by: str, labels: str = "", *, is_whole: bool = False) -> str:
    """The per-second rate of a counter, summed over all labels except `by`."""
    groups = f" by ({by}) " if by else ""
    return f"sum{groups}(rate({series(metric, labels, is_whole=is_whole)}[{RATE}]))"


def increase(metric: str, window: str, by: str = "") -> str:
    groups = f" by ({by}) " if by else ""
    return f"sum{groups}(increase({series(metric)}[{window}]))"


def quantile(share: float, histogram: str, by: str = "", labels: str = "") -> str:
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', groups, labels)})"


def mean(histogram: str, by: str = "") -> str:
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"

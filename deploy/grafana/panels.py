"""Panel definitions and helpers for their queries. Independent of Grafana's JSON format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RATE = "$__rate_interval"
SELECTED = 'route=~"$route", domain=~"$domain"'
OF_DOMAIN = 'domain=~"$domain"'
RECOMMENDATIONS = 'route=~"/recommend/.*"'
WITHIN_OBJECTIVE = 'route=~"/recommend/.*", le="0.5"'
INFERENCE = 'route=~"/recommend/.*|/explain"'
FAILED = INFERENCE + ', status=~"5.."'
SUCCEEDED = INFERENCE + ', status="200"'
LATENCY = "vip5_e2e_request_latency_seconds"


@dataclass(frozen=True)
class Query:
    """PromQL and its legend."""

    expr: str
    legend: str


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


def rate(metric: str, by: str, labels: str = "") -> str:
    """The per-second rate of a counter, summed over all labels except `by`."""
    groups = f" by ({by}) " if by else ""
    chosen = f"{{{labels}}}" if labels else ""
    return f"sum{groups}(rate({metric}{chosen}[{RATE}]))"


def quantile(share: float, histogram: str, by: str = "", labels: str = "") -> str:
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', groups, labels)})"


def mean(histogram: str, by: str = "") -> str:
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"

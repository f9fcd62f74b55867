"""What a panel is, and the queries that panels are filled with. Knows nothing of Grafana's own form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RATE = "$__rate_interval"
CHOSEN = 'route=~"$route", domain=~"$domain"'
OF_DOMAIN = 'domain=~"$domain"'
RECOMMENDATIONS = 'route=~"/recommend/.*"'
QUICK = 'route=~"/recommend/.*", le="0.5"'
ASKED = 'route=~"/recommend/.*|/explain"'
FAILED = ASKED + ', status=~"5.."'
SUCCEEDED = ASKED + ', status="200"'
LATENCY = "vip5_e2e_request_latency_seconds"


@dataclass(frozen=True)
class Query:
    """PromQL, and how a series of its result is called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Limit:
    """From where on a value is bad: above it, or below it."""

    value: float
    is_floor: bool = False


@dataclass(frozen=True)
class PanelSpec:
    """One panel; `unit` is one of Grafana's."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    limit: Limit | None = None
    largest: float | None = None
    form: Literal["lines", "stack", "number"] = "lines"


@dataclass(frozen=True)
class RowSpec:
    """Panels side by side under a title."""

    title: str
    panels: tuple[PanelSpec, ...]


def rate(metric: str, by: str, labels: str = "") -> str:
    """The rate of a counter per second, summed over all labels but those of `by`."""
    groups = f" by ({by}) " if by else ""
    chosen = f"{{{labels}}}" if labels else ""
    return f"sum{groups}(rate({metric}{chosen}[{RATE}]))"


def quantile(share: float, histogram: str, by: str = "", labels: str = "") -> str:
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', groups, labels)})"


def mean(histogram: str, by: str = "") -> str:
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"

"""Degradations: reasons why an answer is incomplete or less accurate.

The kinds are part of the HTTP interface and of the metrics. Add a new kind here and to docs/api.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DegradationKind(StrEnum):
    """Stable names that clients may rely on."""

    ANONYMOUS_USER = "anonymous_user"
    ATTRIBUTION_MISSING = "attribution_missing"
    BEAMS_REDUCED = "beams_reduced"
    HISTORY_MISSING = "history_missing"
    HISTORY_UNAVAILABLE = "history_unavailable"
    LIMITS_UNFILLED = "limits_unfilled"
    MISSING_FEATURES = "missing_features"
    NO_ELIGIBLE_ITEMS = "no_eligible_items"
    PROMPT_TRUNCATED = "prompt_truncated"
    UNKNOWN_ITEMS = "unknown_items"
    UNKNOWN_USER = "unknown_user"
    UNTRAINED_MODEL = "untrained_model"


@dataclass(frozen=True)
class Degradation:
    """One reason, with details for people."""

    kind: DegradationKind
    detail: str

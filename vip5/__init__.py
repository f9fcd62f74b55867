"""The Python interface: open a bundle, recommend, explain, evaluate. `docs/python.md` describes it.

Answers are those of `vip5 serve` and `vip5 predict` for the same requests; evaluations are those of `vip5 evaluate`.
"""

from __future__ import annotations

from model.errors import InputError, Vip5Error
from model.evaluation.options import EvaluationOptions
from service.answering.answers import Recommendation, RecommendedItem
from service.schemas.explanation import ExplanationAnswer
from service.settings.loading import SettingsError
from vip5.bundle import Bundle, ClosedBundleError, Domain, open_bundle
from vip5.options import ExplanationOptions, RankingOptions

__all__ = [
    "Bundle",
    "ClosedBundleError",
    "Domain",
    "EvaluationOptions",
    "ExplanationAnswer",
    "ExplanationOptions",
    "InputError",
    "RankingOptions",
    "Recommendation",
    "RecommendedItem",
    "SettingsError",
    "Vip5Error",
    "open_bundle",
]

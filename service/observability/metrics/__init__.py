"""Prometheus metrics."""

from service.observability.metrics.metrics import JournalBreak, Metrics, Role

__all__ = ["JournalBreak", "Metrics", "Role"]

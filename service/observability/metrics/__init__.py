"""Prometheus metrics."""

from service.observability.metrics.metrics import Metrics, Role

__all__ = ["Metrics", "Role"]

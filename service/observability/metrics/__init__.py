"""What the service counts, and how Prometheus reads it."""

from service.observability.metrics.metrics import Metrics, Role

__all__ = ["Metrics", "Role"]

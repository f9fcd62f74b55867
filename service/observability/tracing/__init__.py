"""Traces of requests. OpenTelemetry is imported only if they are enabled."""

"""Metrics, traces, logs and liveness."""

"""Measuring the quality of a domain through the engine that serves it."""

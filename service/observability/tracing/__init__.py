"""Traces of requests. No tracer is imported unless they are wanted."""

"""Batches requests for the engine: a bounded queue and one thread per lane."""

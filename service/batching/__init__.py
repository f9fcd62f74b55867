"""Turns single requests into batches for the engine: a bounded queue and a thread per lane."""

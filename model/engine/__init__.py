"""Runs batches of work on a device."""

"""Prepared datasets of interactions: the format on disk, and readers for published formats."""

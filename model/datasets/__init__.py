"""Interactions of users with items: the form on disk, and readers for what people have."""

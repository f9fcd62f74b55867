"""Versions of domains: loading, roles, catalog changes and the journal of all changes."""

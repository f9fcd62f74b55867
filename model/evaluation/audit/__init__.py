"""Audits of a bundle: leaks that inflate its metrics, and items that cannot be recommended."""

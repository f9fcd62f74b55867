"""Bundles in a store of objects that several machines reach: pushed once, pulled by each."""

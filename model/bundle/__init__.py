"""Bundles on disk: backbone, domains, catalogs and manifest; loading, verifying, writing and importing them."""

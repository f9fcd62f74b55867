"""Encoding of pictures: reading them, CLIP image towers, and runs over whole catalogs that can be resumed.

Offline work, which the service does not import. Knows no bundles, no files of embeddings and no terminal.
"""

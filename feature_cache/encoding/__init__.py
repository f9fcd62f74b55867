"""Pictures into embeddings: reading them, CLIP image towers, and long runs over a whole catalog.

Offline work that no server imports. Knows no bundles and no terminal.
"""

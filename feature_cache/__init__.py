"""Image embeddings: where they are kept and how they are fetched. Knows no model."""

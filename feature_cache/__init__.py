"""Image embeddings: storing, fetching and computing them. Knows no model and no files of embeddings."""

"""Image embeddings in Redis: their layout, reading and writing."""

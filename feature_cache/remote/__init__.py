"""Image embeddings in Redis: how they lie there, how they are read, and how they are put there."""

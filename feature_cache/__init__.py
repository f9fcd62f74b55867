"""Image embeddings: storing, fetching and computing them. Knows no model and no files of embeddings."""

import quiet_libraries  # noqa: F401  # before the libraries that it keeps quiet

"""One engine process, and workers that speak HTTP for it."""

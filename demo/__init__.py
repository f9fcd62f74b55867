"""The demonstration: a catalog drawn by the project, and the bundle made of it."""

"""The demonstration: a catalog drawn by the project, and the bundle made of it."""

import quiet_libraries  # noqa: F401  # before the libraries that it keeps quiet

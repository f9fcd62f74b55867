"""The service on Ray: replicas behind Ray Serve's proxies, and predictions of files on Ray Data."""

from __future__ import annotations

import quiet_libraries  # noqa: F401  # before Ray

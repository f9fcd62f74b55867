"""Connects to Ray without its messages, after its telemetry was turned off."""

from __future__ import annotations

import logging
import os

import ray
import ray.data


def connect() -> None:
    """Use the cluster that RAY_ADDRESS names, or start one on this machine, for a command's work.

    Without Ray's progress bars and messages, which would mix with the command's; failures are raised.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        # Without an address, Ray would join whatever cluster was last begun here, even one that has ended.
        address = os.environ.get("RAY_ADDRESS") or "local"
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False

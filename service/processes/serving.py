"""Serves in one process, or with workers."""

from __future__ import annotations

from service.http.server import run_server
from service.processes.engine import num_workers_of, run_engine
from service.settings.settings import Settings


def run(settings: Settings) -> None:
    """Serve until a signal. Raises BundleError kinds, ListenError and LaneFailedError."""
    num_workers = num_workers_of(settings)
    if num_workers:
        run_engine(settings, num_workers)
    else:
        run_server(settings)

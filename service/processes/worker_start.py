"""Starts a worker that ends with the engine process from its first moment, while most is still being imported."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(signal_number: int) -> None:
    """Let the system send this signal when the parent process ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)


if __name__ == "__main__":
    end_with_parent(signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)  # the parent had ended before
    from service.processes.worker import main

    main()

"""Settings of Python's interpreter for processes that serve."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_S = 0.0005
"""How long a lane's thread may keep the GIL from the event loop. Under load, the loop responds three times faster than
with Python's default of 5 ms (benchmarks/RESULTS.md)."""


COLLECTED_EVERY = (20_000, 20, 20)
"""Allocations between collections of garbage, and collections of each generation between those of the next.

With Python's 700, every request or two pay for a collection, which finds next to nothing."""


def tune_interpreter() -> None:
    """Called once, when the process starts."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*COLLECTED_EVERY)


def freeze_heap() -> None:
    """Called once before domains are loaded: what is there, mostly of libraries, stays for as long as the process.

    A collection of all garbage takes 135 ms with these objects, and 1 ms without. What is loaded later is not frozen,
    so that versions that are replaced can be collected.
    """
    gc.collect()
    gc.freeze()

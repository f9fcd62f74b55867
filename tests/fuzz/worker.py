"""Runs one kind of fuzzing in this process, which may be ended by what it reads: `tests.fuzz` watches it.

    python -m tests.fuzz.worker pickles --seed 1 --count 2000 [--first 0]

Prints the number of each example before it is tried, and at the end one line of JSON. Exits with 1 if an exception came
that is not an error of ours, or an example took longer than it may.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random

from tests.fuzz.targets import TARGETS, admitted

MAX_SECONDS = 2.0
"""Of the process's own time: other processes may hold the machine."""
WARM_UP = 0.2
"""Of the examples; the memory that they leave is where growth starts."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=TARGETS)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(options.kind, options.seed, range(options.first, options.first + options.count), Path(folder))
    sys.stdout.write(f"{json.dumps(outcome)}\n")
    return 1 if outcome["failures"] or outcome["hangs"] else 0


def run(kind: str, seed: int, numbers: range, folder: Path) -> dict[str, object]:
    target = TARGETS[kind](folder)
    refusals = admitted()
    counts = {"read": 0, "refused": 0}
    failures: list[str] = []
    hangs: list[int] = []
    slowest, start_bytes = 0.0, resident_bytes()
    for number in numbers:
        os.write(1, b"%d\n" % number)
        before = time.process_time()
        try:
            target(Random(f"{kind} {seed} {number}"))
            counts["read"] += 1
        except refusals:
            counts["refused"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - what is looked for; a panic of Rust is no Exception
            failures.append(f"{kind} {seed} {number}: {traceback.format_exc()}")
            sys.stderr.write(failures[-1])
        seconds = time.process_time() - before
        slowest = max(slowest, seconds)
        if seconds > MAX_SECONDS:
            hangs.append(number)
        if number - numbers.start == int(len(numbers) * WARM_UP):
            gc.collect()
            start_bytes = resident_bytes()
    gc.collect()
    end_bytes = resident_bytes()
    return {
        "kind": kind,
        "seed": seed,
        "examples": len(numbers),
        **counts,
        "failures": len(failures),
        "hangs": hangs,
        "slowest_s": round(slowest, 3),
        "start_mib": round(start_bytes / (1 << 20), 1),
        "grown_mib": round((end_bytes - start_bytes) / (1 << 20), 1),
    }


def resident_bytes(process: int | str = "self") -> int:
    """Memory of a process that is in use."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())

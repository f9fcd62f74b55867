"""Reads damaged files of every kind, each kind in processes of its own, and says what went wrong.

    python -m tests.fuzz [KIND …] [--seed 1] [--examples 20000]

A signal, an exception that is no refusal, or an example that takes more than 2 s of the process's time is a fault. A
process that shows no progress for a minute is ended, or for five minutes until its first example is done, because it
imports. After a fault, the next process goes on behind it. Prints a line of JSON for each kind, and exits with 1 if
there was a fault. An example is made from kind, seed and number alone:
`python -m tests.fuzz.worker KIND --seed SEED --first NUMBER --count 1` tries it again.
"""

from __future__ import annotations

import argparse
import json
import selectors
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.targets import TARGETS

SILENCE_S = 60.0
START_S = 300.0
"""Limit on imports, preparation and the first example, which a machine that others use makes slow."""
PER_PROCESS = 5_000
_SHARE = {"pickles": 5}  # times as many as of other kinds


@dataclass
class Outcome:
    """What all processes of a kind found."""

    kind: str
    seed: int
    examples: int = 0
    read: int = 0
    refused: int = 0
    failures: int = 0
    hangs: list[int] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    start_mib: float = 0.0  # resident memory after the first fifth of a process's examples; the most of one process
    grown_mib: float = 0.0  # from there to the end; the most of one process

    def add(self, found: dict[str, Any]) -> None:
        for name in ("examples", "read", "refused", "failures", "hangs"):
            setattr(self, name, getattr(self, name) + found[name])
        self.slowest_s = max(self.slowest_s, found["slowest_s"])
        self.start_mib = max(self.start_mib, found["start_mib"])
        self.grown_mib = max(self.grown_mib, found["grown_mib"])

    @property
    def is_clean(self) -> bool:
        return not (self.failures or self.hangs or self.signals)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(TARGETS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=20_000)
    options = parser.parse_args()
    outcomes = []
    for kind in options.kinds or TARGETS:
        outcome = fuzz(kind, options.seed, options.examples * _SHARE.get(kind, 1))
        sys.stdout.write(f"{json.dumps(outcome.__dict__)}\n")
        sys.stdout.flush()
        outcomes.append(outcome)
    return 0 if all(outcome.is_clean for outcome in outcomes) else 1


def fuzz(kind: str, seed: int, count: int) -> Outcome:
    outcome, first = Outcome(kind, seed), 0
    while first < count:
        size = min(PER_PROCESS, count - first)
        status, last, found = _watch(kind, seed, first, size)
        if found is None:
            outcome.signals.append(f"{status} at {last}")
            outcome.examples += last + 1 - first
            first = last + 1
        else:
            outcome.add(found)
            first += size
    return outcome


def _watch(kind: str, seed: int, first: int, count: int) -> tuple[str, int, dict[str, Any] | None]:
    """How the process ended, the last example that it began, and what it found if it came to the end."""
    arguments = [kind, "--seed", str(seed), "--first", str(first), "--count", str(count)]
    command = [sys.executable, "-m", "tests.fuzz.worker", *arguments]
    last, found, status = first, None, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if not selector.select(SILENCE_S if last > first else START_S):
                process.kill()
                status = "no progress"
                break
            piece = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]  # of a buffered reader
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    found = json.loads(line)
                else:
                    last = int(line)
        process.wait()
    return status or f"exit status {process.returncode}", last, found


if __name__ == "__main__":
    sys.exit(main())

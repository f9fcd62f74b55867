"""`vip5 predict` in parts of five answers, which kills itself after the second.

python -m tests.e2e.killed_predict predict --bundle BUNDLE ...
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from service.answering import prediction
from service.answering.part_files import Counts, PartFiles
from service.cli import main

KILLED_AFTER = 10

_add = PartFiles.add


def add_or_die(self: PartFiles, write: Callable[[Path], None], counts: Counts) -> None:
    _add(self, write, counts)
    if self.done.total == KILLED_AFTER:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    prediction.PART_ROWS = 5
    PartFiles.add = add_or_die  # type: ignore[method-assign]
    main()

"""A frozen heap makes collections short, and leaves what comes later to them."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, sys, weakref
import service.http.server
from service.http.interpreter import freeze_heap

freeze_heap()

class Version:
    pass

version = Version()
version.itself = version
gone = weakref.ref(version)
del version
tracked = len(gc.get_objects())
gc.collect()
print(tracked, gc.get_freeze_count(), gone() is None)
"""


def test_what_was_there_is_not_looked_at_and_what_came_later_is_collected() -> None:
    command = [sys.executable, "-c", SCRIPT]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    tracked, frozen, is_gone = printed.split()[-3:]
    assert int(tracked) < int(frozen) / 100
    assert is_gone == "True"

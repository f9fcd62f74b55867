"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from model.training.memory import keep_freed_memory

def fill():
    torch.ones(1 << 24)  # 64 MB

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(10):  # until the heap has room
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    """Pages that the kernel had to give for blocks of one size, one after the other."""
    found = subprocess.run([sys.executable, "-c", SCRIPT, way], check=True, capture_output=True, text=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other options")
def test_freed_memory_is_kept() -> None:
    assert faults("kept") < faults("given back") / 10

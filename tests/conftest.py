"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import quiet_libraries  # noqa: F401  # also where tests import libraries first

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds real data and golden files."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name}/ beside the repository: real data and golden files are not in it")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are no faster on more, and threads that wait for each other stall where processes share cores."""
    torch.set_num_threads(1)

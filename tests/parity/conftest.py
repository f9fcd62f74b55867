"""The recorded models, and the trie of the real Toys catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model.decoding.eligibility import LeafMask
from model.decoding.trie import Trie
from model.decoding.trie_arena import TrieArena
from model.engine.captured.engine import CapturedEngine
from model.engine.captured.options import CaptureOptions
from model.engine.decoding_engine import DecodingEngine
from model.engine.onnx.executor import OnnxExecutor
from model.engine.torch_executor import TorchExecutor
from model.prompts.assembly import TokenRows
from tests.parity.golden import NAMES, Golden


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session", params=NAMES)
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared / "golden", request.param)


@pytest.fixture(scope="session")
def toys_trie(shared: Path) -> Trie:
    with_eos = json.loads((shared / "golden/common/item_tokens_toys.json").read_text())
    rows = TokenRows.of([tokens[:-1] for tokens in with_eos])
    return Trie.build(rows.flat, rows.offsets, eos_id=1)


@pytest.fixture(scope="session")
def all_toys(toys_trie: Trie) -> LeafMask:
    return LeafMask.of(np.ones(toys_trie.num_leaves, dtype=np.bool_))


@pytest.fixture(scope="session", params=[TorchExecutor, OnnxExecutor], ids=["torch", "onnx"])
def engine(request: pytest.FixtureRequest, golden: Golden, toys_trie: Trie) -> DecodingEngine:
    return DecodingEngine(request.param(golden.network, torch.device("cpu")), TrieArena.of([toys_trie]))


@pytest.fixture(scope="session")
def static_engine(golden: Golden, toys_trie: Trie) -> CapturedEngine:
    """Searches over static buffers, uncaptured."""
    options = CaptureOptions("float32", captures=False, num_spare_slots=1)
    return CapturedEngine(golden.network, [toys_trie], torch.device("cpu"), options)

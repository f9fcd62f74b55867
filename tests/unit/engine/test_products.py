"""Searches with narrower products do not narrow those of texts that run at the same time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.engine import products
from model.engine.captured.options import CaptureOptions
from model.engine.captured.program import SearchProgram
from model.engine.offline import generate
from model.engine.plans import Plan
from model.engine.products import float32_products
from model.engine.torch_executor import TorchBatch, TorchExecutor
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineExplanation
from tests.tiny import TINY_LAYOUT
from tests.unit.engine.rankings import SMALL_LADDER, Served, random_plan


class WatchedLock:
    """Tells when a second thread arrives, before it waits."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.first: int | None = None
        self.arrived = threading.Event()

    def __enter__(self) -> None:
        if self.first is None:
            self.first = threading.get_ident()
        elif self.first != threading.get_ident():
            self.arrived.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_text_beside_a_search_multiplies_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(tmp_path, {"toys": TINY_LAYOUT}, num_items=20)
    engine = served.captured(CaptureOptions("tfloat32", captures=False, ladder=SMALL_LADDER, warm_up=()))
    text = plan_explanation(served.domains[0], OfflineExplanation(item_id="item-3", user_id="u1", max_new_tokens=2))
    text = replace(text, features=(np.ones((1, 8), np.float32),))
    lock = WatchedLock()
    monkeypatch.setattr(products, "_in_use", lock)
    precisions: dict[str, str] = {}
    encode, run = TorchExecutor.encode, SearchProgram.run

    def noted_encode(executor: TorchExecutor, plans: Sequence[Plan]) -> TorchBatch:
        precisions["text"] = torch.get_float32_matmul_precision()
        lock.arrived.set()
        return encode(executor, plans)

    def noted_run(program: SearchProgram) -> None:
        precisions["search"] = torch.get_float32_matmul_precision()
        thread.start()
        lock.arrived.wait()  # until the text waits for the search, or does not and computes
        run(program)

    monkeypatch.setattr(TorchExecutor, "encode", noted_encode)
    monkeypatch.setattr(SearchProgram, "run", noted_run)
    thread = threading.Thread(target=lambda: generate(engine, [text]))
    engine.search([replace(random_plan(served.domains[0], 1), certified=False)])
    thread.join()
    assert precisions == {"search": "high", "text": "highest"}


def test_the_precision_is_set_back_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ValueError, match="inside"), float32_products("high"):
        raise ValueError("inside")
    assert torch.get_float32_matmul_precision() == before

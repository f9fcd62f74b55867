"""Text sessions that were opened before the banks grew serve the domains that are placed afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.decoding.trie_arena import TrieArena
from model.engine.captured.engine import captured_engine
from model.engine.captured.options import CaptureOptions
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import generate
from model.engine.onnx.executor import OnnxExecutor
from model.engine.plans import TextPlan
from model.engine.protocol import Engine, GeneratedText, Placement, TextSession
from model.engine.torch_executor import TorchExecutor
from model.network.config import DomainLayout
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineExplanation
from tests.tiny import TINY_LAYOUT
from tests.unit.engine.rankings import SMALL_LADDER, Served

SMALL = replace(TINY_LAYOUT, bottleneck=2, cross_attention_adapter=False, visual_tokens=1, feature_dim=4)
NEW_SLOT = {"beyond the last slot": 7, "in a free slot": 1}
LAYOUTS: dict[str, DomainLayout] = {
    "as large": SMALL,
    "wider features": replace(SMALL, feature_dim=11),
    "a wider bottleneck": replace(SMALL, bottleneck=9),
    "more visual tokens": replace(SMALL, visual_tokens=3),
    "adapters of cross-attention": replace(SMALL, cross_attention_adapter=True),
    "adapters by task": replace(SMALL, one_adapter_for_all_tasks=False),
}
CPU = torch.device("cpu")


def _torch(served: Served) -> Engine:
    return DecodingEngine(TorchExecutor(served.bundle.network(), CPU), TrieArena.of([served.domains[0].trie]))


def _onnx(served: Served) -> Engine:
    return DecodingEngine(OnnxExecutor(served.bundle.network(), CPU), TrieArena.of([served.domains[0].trie]))


def _captured(served: Served) -> Engine:
    options = CaptureOptions("float32", captures=False, ladder=SMALL_LADDER, warm_up=(), num_spare_slots=1)
    return captured_engine(served.bundle.network(), [served.domains[0].trie], CPU, options)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("before"), {"first": SMALL}, num_items=30)


@pytest.mark.parametrize("make", [_torch, _onnx, _captured])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("slot", NEW_SLOT)
def test_an_open_session_writes_the_texts_of_a_domain_placed_since(
    tmp_path: Path, served: Served, make: Callable[[Served], Engine], layout: str, slot: str
) -> None:
    other = Served(tmp_path, {"second": LAYOUTS[layout]}, num_items=40)
    new_plan, old_plan = _plan(other), _plan(served)
    (new_text,), (old_text,) = generate(_torch(other), [new_plan]), generate(_torch(served), [old_plan])

    engine = make(served)
    session = engine.open_texts(3)
    (running,) = session.admit([old_plan])
    session.step()
    files = other.bundle.domains["second"]
    weights = {**other.bundle.backbone.weights, **files.adapter}
    engine.place(NEW_SLOT[slot], Placement(files.spec.layout, weights, other.domains[0].trie))
    (joined,) = session.admit([replace(new_plan, slot=NEW_SLOT[slot])])
    found = _finished(session)

    _assert_same(found[joined], new_text)
    _assert_same(found[running], old_text)


def _plan(served: Served) -> TextPlan:
    (domain,) = served.domains
    plan = plan_explanation(domain, OfflineExplanation(item_id="item-3", user_id="u1", max_new_tokens=9))
    features = np.random.default_rng(2).standard_normal((1, domain.spec.layout.feature_dim)).astype(np.float32)
    return replace(plan, features=(features,))


def _finished(session: TextSession) -> dict[int, GeneratedText]:
    texts: dict[int, GeneratedText] = {}
    while session.num_free < 3:
        texts |= {each.row: each.finished for each in session.step() if each.finished is not None}
    return texts


def _assert_same(found: GeneratedText, expected: GeneratedText) -> None:
    assert found.token_ids == expected.token_ids
    assert found.score == pytest.approx(expected.score, abs=1e-4)

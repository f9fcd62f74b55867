"""Domains that are placed while others are served, compared with an engine that had them from the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.bundle.bundle import Bundle, open_bundle
from model.engine.offline import rank
from model.engine.plans import RankingPlan
from model.engine.protocol import Engine, Placement, Ranking
from model.network.config import DomainLayout
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import load_runtime
from tests.tiny import TINY_LAYOUT, tiny_bundle

WIDER = replace(
    TINY_LAYOUT, bottleneck=7, one_adapter_for_all_tasks=False, visual_tokens=3, feature_dim=11, category_rows=24
)
NARROWER = replace(TINY_LAYOUT, bottleneck=2, cross_attention_adapter=False, visual_tokens=1, visual_norm=False)
LAYOUTS = {"as wide": TINY_LAYOUT, "wider": WIDER, "narrower": NARROWER}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("toys"), num_items=60)


@pytest.fixture(params=["torch", "onnx"])
def engine(request: pytest.FixtureRequest, toys: Path) -> Engine:
    return load_runtime(toys, engine=request.param).engine


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("slot", [1, 3])
def test_a_domain_placed_later_answers_as_one_that_was_there_from_the_start(
    tmp_path: Path, engine: Engine, layout: DomainLayout, slot: int
) -> None:
    both = _both(tmp_path, layout)
    from_the_start = load_runtime(both.root, engine="torch").engine
    before = _rank(engine, _plan(both, "toys", 0))
    engine.place(slot, _placement(both, "garments"))
    assert engine.num_slots == slot + 1
    found = _rank(engine, _plan(both, "toys", 0), _plan(both, "garments", slot))
    expected = _rank(from_the_start, _plan(both, "toys", 1), _plan(both, "garments", 0))
    assert _are_same(found[:1], before)
    assert _are_same(found, expected)


def test_nothing_is_left_of_a_wider_domain_that_was_in_the_slot_before(tmp_path: Path, engine: Engine) -> None:
    both = _both(tmp_path, NARROWER)
    wide = open_bundle(tiny_bundle(tmp_path / "wide", ("toys", "other"), layouts={"other": WIDER}))
    engine.place(1, _placement(wide, "other"))
    engine.vacate(1)
    engine.place(1, _placement(both, "garments"))
    expected = _rank(load_runtime(both.root, engine="torch").engine, _plan(both, "garments", 0))
    assert _are_same(_rank(engine, _plan(both, "garments", 1)), expected)


def test_the_slot_of_a_domain_with_other_weights_can_be_used_at_once(tmp_path: Path, engine: Engine) -> None:
    both = _both(tmp_path, TINY_LAYOUT)
    engine.place(0, _placement(both, "garments"))
    assert engine.num_slots == 1
    expected = _rank(load_runtime(both.root, engine="torch").engine, _plan(both, "garments", 0))
    assert _are_same(_rank(engine, _plan(both, "garments", 0)), expected)


def _both(folder: Path, layout: DomainLayout) -> Bundle:
    return open_bundle(tiny_bundle(folder, ("toys", "garments"), num_items=60, layouts={"garments": layout}))


def _placement(bundle: Bundle, name: str) -> Placement:
    domain = ServedDomain.of(0, bundle.domains[name], bundle.tokenizer, bundle.hash)
    weights = {**bundle.backbone.weights, **bundle.domains[name].adapter}
    return Placement(bundle.domains[name].spec.layout, weights, domain.trie)


def _plan(bundle: Bundle, name: str, slot: int) -> RankingPlan:
    domain = ServedDomain.of(slot, bundle.domains[name], bundle.tokenizer, bundle.hash)
    plan = plan_sequential(domain, OfflineSequential(history=("item-3", "item-5"), user_id="u1"))
    assert isinstance(plan, RankingPlan)
    features = np.random.default_rng(3).standard_normal((2, domain.spec.layout.feature_dim)).astype(np.float32)
    return replace(plan, features=(features,))


def _rank(engine: Engine, *plans: RankingPlan) -> list[Ranking]:
    return rank(engine, plans)


def _are_same(found: list[Ranking], expected: list[Ranking]) -> bool:
    return all(
        one.leaves.tolist() == other.leaves.tolist() and np.allclose(one.scores, other.scores, atol=1e-4)
        for one, other in zip(found, expected, strict=True)
    )

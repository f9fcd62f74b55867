"""Domains with different layouts and catalogs, and random rankings with all options over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.bundle.bundle import open_bundle
from model.bundle.layout import DomainSpec
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.writer import BundleWriter
from model.decoding.leaf_boosts import Boosts, BoostTable
from model.decoding.leaf_groups import LeafGroups, Limit
from model.decoding.leaf_intervals import NOTHING
from model.decoding.trie_arena import TrieArena
from model.engine.captured.buckets import Ladder
from model.engine.captured.engine import CapturedEngine, captured_engine
from model.engine.captured.options import CaptureOptions
from model.engine.decoding_engine import DecodingEngine
from model.engine.executor import Executor
from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking
from model.engine.torch_executor import TorchExecutor
from model.network.config import DomainLayout
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineDirect, OfflineSequential
from model.planning.rankings import plan_direct, plan_sequential
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, random_tensors, tiny_catalog, tiny_tokenizer

SAME = 1e-5
LAYOUTS: dict[str, DomainLayout] = {
    "books": replace(
        TINY_LAYOUT,
        bottleneck=2,
        cross_attention_adapter=False,
        one_adapter_for_all_tasks=False,
        visual_tokens=3,
        feature_dim=12,
        visual_norm=False,
        whole_word_rows=1100,
    ),
    "plain": replace(TINY_LAYOUT, bottleneck=0, visual_tokens=0, feature_dim=0, category_rows=0),
    "toys": TINY_LAYOUT,
}
SMALL_LADDER = Ladder(rows=(1, 2, 4, 8), tokens=(32, 64, 128), beams=(4, 20), listed=(4, 16), max_beams=160)


class Served:
    """A bundle of domains whose catalogs differ, and engines over it."""

    def __init__(self, folder: Path, layouts: dict[str, DomainLayout], *, num_items: int = 120) -> None:
        """The first domain has `num_items` items, each further one 31 fewer."""
        root = folder / "bundle"
        with BundleWriter(root) as writer:
            writer.share_backbone(TINY_BACKBONE, random_tensors(expected_shapes(TINY_BACKBONE), 0), tiny_tokenizer())
            for number, (name, layout) in enumerate(layouts.items()):
                adapter = random_tensors(expected_domain_shapes(TINY_BACKBONE, layout), number + 1)
                writer.add_domain(DomainSpec(name, layout, ""), adapter, tiny_catalog(num_items - 31 * number))
            writer.seal()
        self.bundle = open_bundle(root)
        self.domains = [
            ServedDomain.of(slot, self.bundle.domains[name], self.bundle.tokenizer, self.bundle.hash)
            for slot, name in enumerate(sorted(layouts))
        ]

    def plain(self, dtype: torch.dtype = torch.float32) -> DecodingEngine:
        device = torch.device("cpu")
        arena = TrieArena.of([domain.trie for domain in self.domains])
        return DecodingEngine(TorchExecutor(self.bundle.network().to(dtype), device), arena)

    def over(self, make: Callable[..., Executor], **options: object) -> DecodingEngine:
        """An engine over an executor of this kind."""
        arena = TrieArena.of([domain.trie for domain in self.domains])
        return DecodingEngine(make(self.bundle.network(), torch.device("cpu"), **options), arena)

    def captured(self, options: CaptureOptions | None = None, device: str = "cpu") -> CapturedEngine:
        tries = [domain.trie for domain in self.domains]
        options = options or CaptureOptions("float32", captures=device != "cpu", ladder=SMALL_LADDER, warm_up=())
        return captured_engine(self.bundle.network(), tries, torch.device(device), options)


def random_plan(domain: ServedDomain, seed: int) -> RankingPlan:
    """Histories, candidates, filters, lists, beams and length penalties of all kinds."""
    generator = np.random.default_rng(seed)
    item_ids = domain.catalog.item_ids
    some = tuple(item_ids[row] for row in generator.integers(0, len(item_ids), 1 + seed % 5))
    k = int(generator.integers(1, 12))
    shared: dict[str, Any] = {
        "k": k,
        "num_beams": k + int(generator.integers(0, 8)),
        "exclude_items": some[:1],
        "where": {"category": ("dolls", "games")} if seed % 4 == 0 else {},
        "length_penalty": float(generator.choice([0.0, 0.0, 1.0, -0.5])),
        "exactness": "certified" if seed % 5 == 3 else "beam",
    }
    plan = (
        plan_sequential(domain, OfflineSequential(history=some, user_id="u1", **shared))
        if generator.random() < 0.6
        else plan_direct(domain, OfflineDirect(candidates=None if seed % 3 else some, user_id="u2", **shared))
    )
    assert isinstance(plan, RankingPlan)
    return replace(plan, features=(_features(domain, len(plan.prompt.image_items), generator),))


def random_plans(domains: Sequence[ServedDomain], count: int, seed: int) -> list[RankingPlan]:
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(domains), count)
    return [random_plan(domains[int(each)], seed * 1000 + number) for number, each in enumerate(chosen)]


def assert_same(found: Sequence[Ranking], expected: Sequence[Ranking], tolerance: float = SAME) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.leaves.tolist() == other.leaves.tolist()
        assert one.scores == pytest.approx(other.scores, abs=tolerance)
        assert (one.exact_prefix, one.num_beams) == (other.exact_prefix, other.num_beams)
        assert (one.boosted is None, one.is_short) == (other.boosted is None, other.is_short)
        if one.boosted is not None:
            assert one.boosted == pytest.approx(other.boosted, abs=tolerance)


def _features(domain: ServedDomain, num_images: int, generator: np.random.Generator) -> NDArray[np.float32]:
    return generator.standard_normal((num_images, domain.spec.layout.feature_dim)).astype(np.float32)


def merchandised(plan: RankingPlan, domain: ServedDomain, seed: int) -> RankingPlan:
    """The plan with boosts of random leaves, by a table and by item, and now and then a limit of a random column."""
    generator = np.random.default_rng(seed)
    num_leaves, mask = domain.trie.num_leaves, plan.eligibility.base
    nats = generator.choice([0.0, 0.4, 2.0, -1.0], num_leaves)
    table = np.where(mask.is_member, nats, NOTHING).astype(np.float32)
    own = np.unique(generator.integers(0, num_leaves, seed % 4)).astype(np.int32)
    extra = generator.choice([1.0, -1.0], len(own)).astype(np.float32)
    groups = LeafGroups(None, generator.integers(-1, 4, num_leaves).astype(np.int32))
    return replace(
        plan,
        boosts=None if seed % 5 == 0 else Boosts(BoostTable(domain.trie.intervals, lambda: table), own, extra),
        limits=(Limit("category", lambda: groups, 1 + seed % 3),) if seed % 3 == 0 else (),
    )

"""The sides of the comparison, asked in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.toys_bundle import DOMAIN, Purchases
from benchmarks.transformers_baseline import Vip5InTransformers, build_trie, generate, plain_t5
from model.bundle.bundle import Bundle
from model.engine.planning import plan_sequential
from model.engine.plans import RankingPlan
from model.engine.protocol import EncoderInput, Ranking
from model.engine.queries import RankingOptions, SequentialQuery
from model.engine.runtime import load_runtime

NUM_BEAMS = 20
K = 10


@dataclass(frozen=True, eq=False)
class Request:
    """A request as ours gets it, and what the other sides are given in its place."""

    purchases: Purchases
    source: EncoderInput

    @property
    def num_tokens(self) -> int:
        return self.source.prompt.num_tokens


class Ours:
    """The engine, from the history's item ids to the answer's."""

    def __init__(self, root: Path, num_threads: int) -> None:
        self._runtime = load_runtime(root, num_threads=num_threads)
        self._domain = self._runtime.domains[DOMAIN]
        # Toys has an embedding of every item, in the catalog's order.
        self._features: NDArray[np.float32] = load_file(self._runtime.feature_files[DOMAIN])["features"]

    def request(self, purchases: Purchases) -> Request:
        plan = self._plan(purchases, RankingOptions())
        return Request(purchases, plan.work([self._features_of(plan)]).source)

    def answer(self, request: Request) -> list[str | None]:
        """The K best items that are not in the history."""
        ranking = self._rank(self._plan(request.purchases, RankingOptions(k=K, num_beams=NUM_BEAMS)))
        return [self._domain.catalog.item_ids[row] for row in self._domain.rows_of(ranking.leaves)]

    def best(self, request: Request) -> list[tuple[str | None, float]]:
        """The NUM_BEAMS best items of all, with their scores."""
        options = RankingOptions(k=NUM_BEAMS, num_beams=NUM_BEAMS)
        ranking = self._rank(self._plan(request.purchases, options, exclude_history=False))
        rows = self._domain.rows_of(ranking.leaves)
        return [
            (self._domain.catalog.item_ids[row], float(score)) for row, score in zip(rows, ranking.scores, strict=True)
        ]

    def _plan(self, purchases: Purchases, options: RankingOptions, *, exclude_history: bool = True) -> RankingPlan:
        query = SequentialQuery(
            history=purchases.history, user_id=purchases.user_index, exclude_history=exclude_history, options=options
        )
        plan = plan_sequential(self._domain, query)
        assert isinstance(plan, RankingPlan)
        return plan

    def _rank(self, plan: RankingPlan) -> Ranking:
        (ranking,), _ = self._runtime.engine.rank([plan.work([self._features_of(plan)])])
        return ranking

    def _features_of(self, plan: RankingPlan) -> NDArray[np.float32]:
        return self._features[list(plan.prompt.image_items)]


class _Generating:
    """What the sides that use the library have in common."""

    def __init__(self, bundle: Bundle) -> None:
        catalog = bundle.domains[DOMAIN].catalog
        identifiers = bundle.tokenizer.identifiers(catalog.indices)
        self._trie = build_trie(identifiers)
        self._item_of = {tuple(ids): item_id for ids, item_id in zip(identifiers, catalog.item_ids, strict=True)}


class PlainT5(_Generating):
    """The library's T5 and `generate`, on the prompt's token ids alone."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._model = plain_t5(bundle, DOMAIN)

    @torch.inference_mode()
    def answer(self, request: Request) -> list[str | None]:
        """The K best items that are not in the history; None for a sequence that is no item."""
        prompt = {"input_ids": torch.from_numpy(request.source.prompt.input_ids)[None]}
        found = generate(self._model, prompt, self._trie, NUM_BEAMS)
        items = [self._item_of.get(one.token_ids) for one in found]
        return [item for item in items if item is None or item not in request.purchases.history][:K]


class Vip5Rebuilt(_Generating):
    """VIP5 on the library's T5 and `generate`."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._vip5 = Vip5InTransformers(bundle, DOMAIN)

    @torch.inference_mode()
    def best(self, request: Request) -> list[tuple[str | None, float]]:
        """The NUM_BEAMS best items of all, with their scores."""
        embedded = self._vip5.embed(request.source)
        prompt = {"inputs_embeds": embedded, "attention_mask": torch.ones(embedded.shape[:2], dtype=torch.long)}
        found = generate(self._vip5.model, prompt, self._trie, NUM_BEAMS)
        return [(self._item_of.get(one.token_ids), one.score) for one in found]

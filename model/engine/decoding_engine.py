"""The engine that runs searches operator by operator, over any executor."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.beams import SpecialIds
from model.decoding.items import ItemSearch, search_items
from model.decoding.leaf_boosts import BoostTable
from model.decoding.targets import target_log_probs
from model.decoding.trie import EMPTY_TRIE
from model.decoding.trie_arena import TrieArena
from model.engine.boost_tables import BoostTables, batch_boosts
from model.engine.executor import Executor
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import LogProbs, Placement, Ranking, TextSession, Timings
from model.engine.rankings import CERTIFIED_BEAM_LIMIT, rankings_of, widened_plan
from model.engine.row_options import row_options
from model.engine.texts import DecodingTextSession
from model.network.network import EOS_ID, START_ID

SPECIAL = SpecialIds(start=START_ID, eos=EOS_ID)
MIN_LENGTH_RATIO = 0.75
"""Shortest prompt of a group, as a share of its longest."""


class DecodingEngine:
    """An Engine: slot i of the executor's weights belongs to trie i of the arena."""

    def __init__(
        self, executor: Executor, arena: TrieArena, *, certified_beam_limit: int = CERTIFIED_BEAM_LIMIT
    ) -> None:
        self._executor = executor
        self._arena = arena
        self._device = executor.device
        self._boost_tables = BoostTables(executor.device)
        self._certified_beam_limit = certified_beam_limit

    @property
    def num_slots(self) -> int:
        return self._executor.num_slots

    @property
    def is_exact(self) -> bool:
        return self._executor.is_exact

    def place(self, slot: int, placement: Placement) -> None:
        self._executor.place(slot, placement)
        self._arena = self._arena.with_trie(slot, placement.trie)

    def vacate(self, slot: int) -> None:
        self._arena = self._arena.with_trie(slot, EMPTY_TRIE)

    def expect_boosts(self, tables: Sequence[BoostTable]) -> None:
        """There is nothing to prepare."""

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        rankings: dict[int, Ranking] = {}
        timings = Timings()
        with self._executor.computing():
            for group in self._groups([plan.longest for plan in batch]):
                plans = [batch[place] for place in group]
                started_at = time.perf_counter()
                encoded = self._executor.encode(plans)
                encoded_at = time.perf_counter()
                search = self._item_search(plans)
                stepper = encoded.item_stepper(num_beams=search.num_beams, max_length=len(search.max_children))
                beams = search_items(search, stepper, prunes_early=self._device.type == "cpu")
                rankings.update(zip(group, rankings_of(beams, plans, is_exact=self.is_exact), strict=True))
                timings += Timings(encoded_at - started_at, time.perf_counter() - encoded_at)
        return [rankings[place] for place in range(len(batch))], timings

    def widened(self, plan: RankingPlan, ranking: Ranking) -> RankingPlan | None:
        if not self.is_exact:
            return None  # no number of beams proves anything
        return widened_plan(plan, ranking, self._arena.tries[plan.slot], self._certified_beam_limit)

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        """Each prompt is encoded once, and all of its targets are decoded together."""
        targets = [plan.targets for plan in batch for _ in plan.prompts]
        if not targets:
            return [() for _ in batch], Timings()
        with self._executor.computing():
            started_at = time.perf_counter()
            encoded = self._executor.encode(batch)
            encoded_at = time.perf_counter()
            found = iter(target_log_probs(encoded.stepper, targets, start=START_ID, device=self._device))
        timings = Timings(encoded_at - started_at, time.perf_counter() - encoded_at)
        return [tuple(next(found) for _ in plan.prompts) for plan in batch], timings

    def open_texts(self, num_rows: int) -> TextSession:
        return DecodingTextSession(self._executor, num_rows, SPECIAL)

    def _groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Positions of plans to search together: on a CPU, where padding costs time, those of similar length."""
        order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
        if self._device.type != "cpu":
            return [order] if order else []
        groups: list[list[int]] = []
        for place in order:
            if groups and lengths[place] >= MIN_LENGTH_RATIO * lengths[groups[-1][0]]:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def _item_search(self, plans: Sequence[RankingPlan]) -> ItemSearch:
        slots, arena = tuple(plan.slot for plan in plans), self._arena
        num_beams = max(plan.num_beams for plan in plans)
        return ItemSearch(
            nodes=arena.nodes,
            roots=self._column([arena.roots[slot] for slot in slots]),
            depths=self._column([arena.tries[slot].depth for slot in slots]),
            eligibility=BatchEligibility.of([plan.eligibility for plan in plans], self._device),
            options=row_options(plans).convert(self._column),
            num_beams=num_beams,
            max_children=arena.max_children(slots, num_beams),
            special=SPECIAL,
            boosts=batch_boosts(plans, self._boost_tables, arena.nodes.source),
        )

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device).unsqueeze(1)

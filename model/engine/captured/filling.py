"""Writes a batch of plans into a search's inputs, and reads its rankings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from numpy.typing import NDArray

from model.decoding.items import ItemBeams, RowOptions
from model.engine.boost_tables import patches_of, starts_of, write_patches
from model.engine.captured.buckets import Bucket
from model.engine.captured.buffers import SearchBuffers, SearchInputs
from model.engine.captured.catalog import DeviceCatalog
from model.engine.captured.program import TOKENS_PER_IMAGE
from model.engine.collate import num_images_shown
from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking
from model.engine.rankings import rankings_of
from model.engine.row_options import row_options
from model.network.config import Task
from model.network.network import Vip5Network


def need_of(plans: Sequence[RankingPlan], network: Vip5Network, *, is_exact: bool = False) -> Bucket:
    """The exact sizes of a batch, as a bucket."""
    readers = set(_adapters(plans, network).values())
    return Bucket(
        num_rows=len(plans),
        num_tokens=max(_num_tokens(plan, network) for plan in plans),
        num_beams=max(plan.num_beams for plan in plans),
        num_listed=max(1, *(_num_listed(plan) for plan in plans)),
        is_mixed=len(readers) > 1,
        is_exact=is_exact,
        num_patches=max((1 + _most_patches(plan) for plan in plans if plan.boosts is not None), default=0),
    )


def _num_tokens(plan: RankingPlan, network: Vip5Network) -> int:
    return max(plan.longest, TOKENS_PER_IMAGE * num_images_shown(plan.prompt, plan.slot, network))


def _num_listed(plan: RankingPlan) -> int:
    return len(plan.eligibility.excluded if plan.eligibility.included is None else plan.eligibility.included)


def _most_patches(plan: RankingPlan) -> int:
    """An upper bound of the plan's patches: its listed leaves and its own boosts, and the wide nodes above each."""
    assert plan.boosts is not None
    num_levels = len(plan.boosts.table.intervals.levels)
    num_own = 0 if plan.eligibility.included is not None else len(plan.boosts.leaves)
    return (_num_listed(plan) + num_own) * (1 + num_levels)


def fill(buffers: SearchBuffers, plans: Sequence[RankingPlan], catalog: DeviceCatalog, network: Vip5Network) -> None:
    """Write plans into the host's inputs; the remaining rows find no items."""
    buffers.clear()
    host = buffers.host
    _fill_prompts(host, plans, network)
    num_entries = len(host.domains)  # 1 if all rows share a domain
    _write(host.domains, [plan.slot for plan in plans][:num_entries])
    adapters = _adapters(plans, network)
    _write(host.adapters, [adapters[plan.slot, plan.task] for plan in plans][:num_entries])
    host.roots.fill(catalog.root(plans[0].slot))
    _write(host.roots, [catalog.root(plan.slot) for plan in plans])
    _write(host.depths, [catalog.trie(plan.slot).depth for plan in plans])
    options = row_options(plans)
    for each in fields(RowOptions):
        _write(getattr(host.options, each.name), getattr(options, each.name))
    _fill_eligibility(host, plans, catalog)
    if buffers.is_boosted:
        _fill_boosts(host, plans, catalog)


def _adapters(plans: Sequence[RankingPlan], network: Vip5Network) -> dict[tuple[int, Task], int]:
    """The adapter of each domain and task."""
    return {(slot, task): network.adapter_row(slot, task) for slot, task in {(plan.slot, plan.task) for plan in plans}}


def _fill_prompts(host: SearchInputs[NDArray[Any]], plans: Sequence[RankingPlan], network: Vip5Network) -> None:
    for row, plan in enumerate(plans):
        prompt = plan.prompt
        length = len(prompt.input_ids)
        host.input_ids[row, :length] = prompt.input_ids
        host.whole_word_ids[row, :length] = prompt.whole_word_ids
        host.category_ids[row, :length] = prompt.category_ids
        shown = num_images_shown(prompt, plan.slot, network)
        given = plan.features_by_prompt[0][:shown]
        num_given, width = given.shape
        target = host.features[row]
        target[:num_given, :width] = given
        target[:num_given, width:] = 0
        target[num_given:shown] = 0


def _fill_eligibility(host: SearchInputs[NDArray[Any]], plans: Sequence[RankingPlan], catalog: DeviceCatalog) -> None:
    for row, plan in enumerate(plans):
        eligibility = plan.eligibility
        leaves = eligibility.excluded if eligibility.included is None else eligibility.included
        host.listed[row, : len(leaves)] = leaves
    is_list_only = [plan.eligibility.included is not None for plan in plans]
    _write(host.base_weight, [0 if is_only else 1 for is_only in is_list_only])
    _write(host.list_sign, [1 if is_only else -1 for is_only in is_list_only])
    _write(host.base_offset, [catalog.offset(plan.eligibility.base) for plan in plans])


def _fill_boosts(host: SearchInputs[NDArray[Any]], plans: Sequence[RankingPlan], catalog: DeviceCatalog) -> None:
    starts, weights = starts_of(plans, catalog.boosts)
    _write(host.boost_offset, starts)
    _write(host.boost_weight, weights)
    write_patches(host.patched, host.patches, [patches_of(plan) for plan in plans])


def _write(target: NDArray[Any], values: Sequence[float]) -> None:
    target.reshape(-1)[: len(values)] = values


def read(buffers: SearchBuffers, plans: Sequence[RankingPlan], *, is_exact: bool) -> list[Ranking]:
    """Rankings of the plans from the host's outputs. Without `is_exact` they claim no proof."""
    count, found = len(plans), buffers.found
    beams = ItemBeams(
        scores=found.scores[:count],
        leaves=found.leaves[:count].long(),
        bound=found.bound[:count],
        model_scores=found.model_scores[:count] if buffers.is_boosted else None,
    )
    return rankings_of(beams, plans, is_exact=is_exact)

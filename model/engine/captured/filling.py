"""Writing a batch of works into a search's inputs, and reading its rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from model.decoding.items import ItemBeams
from model.engine.captured.buckets import Bucket
from model.engine.captured.buffers import SearchBuffers, SearchInputs
from model.engine.captured.catalog import DeviceCatalog
from model.engine.captured.program import TOKENS_PER_IMAGE
from model.engine.collate import num_shown
from model.engine.protocol import EncoderInput, Ranking, RankingWork
from model.engine.rankings import rankings_of
from model.network.network import Vip5Network


def need_of(works: Sequence[RankingWork], network: Vip5Network) -> Bucket:
    """The smallest shape that the works fit in."""
    readers = {(work.source.slot, network.adapter_row(work.source.slot, work.source.task)) for work in works}
    return Bucket(
        num_rows=len(works),
        num_tokens=max(_num_tokens(work.source, network) for work in works),
        num_beams=max(work.num_beams for work in works),
        num_listed=max(1, *(_num_listed(work) for work in works)),
        is_mixed=len(readers) > 1,
    )


def _num_tokens(source: EncoderInput, network: Vip5Network) -> int:
    return max(source.prompt.num_tokens, TOKENS_PER_IMAGE * num_shown(source, network))


def _num_listed(work: RankingWork) -> int:
    return len(work.eligibility.excluded if work.eligibility.included is None else work.eligibility.included)


def fill(buffers: SearchBuffers, works: Sequence[RankingWork], catalog: DeviceCatalog, network: Vip5Network) -> None:
    """Write works into the host's inputs; rows beyond them find nothing."""
    buffers.clear()
    host = buffers.host
    sources = [work.source for work in works]
    _fill_prompts(host, sources, network)
    num_read = len(host.domains)
    _write(host.domains, [source.slot for source in sources][:num_read])
    _write(host.adapters, [network.adapter_row(source.slot, source.task) for source in sources][:num_read])
    host.roots.fill(catalog.root(sources[0].slot))
    _write(host.roots, [catalog.root(source.slot) for source in sources])
    _write(host.depths, [catalog.trie(source.slot).depth for source in sources])
    _write(host.beams, [work.num_beams for work in works])
    _write(host.length_penalty, [work.length_penalty for work in works])
    _fill_eligibility(host, works, catalog)


def _fill_prompts(host: SearchInputs[NDArray[Any]], sources: Sequence[EncoderInput], network: Vip5Network) -> None:
    ids, features = (host.input_ids, host.whole_word_ids, host.category_ids), host.features
    for row, source in enumerate(sources):
        prompt, length = source.prompt, source.prompt.num_tokens
        for line, values in zip(ids, (prompt.input_ids, prompt.whole_word_ids, prompt.category_ids), strict=True):
            line[row, :length] = values
        shown = num_shown(source, network)
        features[row, :shown] = 0
        given = source.features[:shown]
        if given.size:
            features[row, : len(given), : given.shape[1]] = given


def _fill_eligibility(host: SearchInputs[NDArray[Any]], works: Sequence[RankingWork], catalog: DeviceCatalog) -> None:
    for row, work in enumerate(works):
        eligibility = work.eligibility
        leaves = eligibility.excluded if eligibility.included is None else eligibility.included
        host.listed[row, : len(leaves)] = leaves
    is_list_only = [work.eligibility.included is not None for work in works]
    _write(host.base_weight, [0 if is_only else 1 for is_only in is_list_only])
    _write(host.list_sign, [1 if is_only else -1 for is_only in is_list_only])
    _write(host.base_offset, [catalog.offset(work.eligibility.base) for work in works])


def _write(target: NDArray[Any], values: Sequence[float]) -> None:
    target.reshape(-1)[: len(values)] = values


def read(buffers: SearchBuffers, works: Sequence[RankingWork]) -> list[Ranking]:
    """Rankings of the works from the host's results."""
    count, found = len(works), buffers.found
    beams = ItemBeams(scores=found.scores[:count], leaves=found.leaves[:count].long(), bound=found.bound[:count])
    return rankings_of(beams, works)

"""A whole search over static buffers, from prompts to items, without synchronisation with the host."""

# B rows, S source length, I images, K beams, T steps, H heads, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from model.decoding.batch_boosts import BatchBoosts
from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.items import ItemSearch, SearchRanges, search_items
from model.engine.captured.buckets import Bucket
from model.engine.captured.buffers import SearchBuffers
from model.engine.captured.catalog import Arrays
from model.engine.decoding_engine import SPECIAL
from model.network.banks import RowIndex
from model.network.beam_tree import BeamTree, TreePlan
from model.network.network import EncoderBatch, Vip5Network
from model.network.packing import PackedNetwork
from model.network.stacks import Memory

TOKENS_PER_IMAGE = 4
"""Assumed minimum of prompt tokens per image; limits the images of a bucket. Prompts with more count as longer."""


class Replay(Protocol):
    """Runs a prepared search again, without waiting for it."""

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class ProgramShape:
    """A bucket and the capacity for the catalog's tries."""

    bucket: Bucket
    max_children: tuple[int, ...]  # [T], capacity for children at each step

    def serves(self, max_children: tuple[int, ...]) -> bool:
        """Whether the capacity suffices for tries with these numbers of children."""
        return len(self.max_children) >= len(max_children) and all(
            capacity >= needed for capacity, needed in zip(self.max_children, max_children, strict=False)
        )


class SearchProgram:
    """The search of one shape, with its static buffers, over one network and one generation of the catalog's arrays."""

    def __init__(self, shape: ProgramShape, packed: PackedNetwork, arrays: Arrays, boosts: Tensor) -> None:
        """`boosts` is the buffer of boost tables."""
        self.shape = shape
        self._boosts = boosts
        self._packed = packed
        self._arrays = arrays
        network = packed.network
        bucket, dtype = shape.bucket, network.shared.dtype
        device = network.shared.device
        self.buffers = SearchBuffers(bucket, num_images(bucket, network), network.feature_dim, device)
        self._encoder_positions = network.encoder.positions(bucket.num_tokens).to(dtype)
        positions = network.decoder.positions(len(shape.max_children)).to(dtype)
        self._ranges = SearchRanges.of(self._item_search())
        self._tree_plan = TreePlan.of(positions, bucket.num_beams)

    def run(self) -> None:
        """Compute the device's outputs from its inputs; all shapes depend on the bucket only."""
        inputs = self.buffers.inputs
        rows = self._packed.rows(inputs.domains, inputs.adapters)
        memory = self._memorise(rows)
        tree = BeamTree(self._tree_plan, self._packed.network.new_tree_data(len(inputs.roots), self._tree_plan))
        stepper = _TreeStepper(self._packed.network, tree, memory, rows)
        beams = search_items(self._item_search(), stepper, prunes_early=False, ranges=self._ranges)
        outputs = self.buffers.outputs
        outputs.scores.copy_(beams.scores)
        outputs.bound.copy_(beams.bound)
        outputs.leaves.copy_(beams.leaves)
        if beams.model_scores is not None:
            outputs.model_scores.copy_(beams.model_scores)

    def _memorise(self, rows: RowIndex) -> Memory:
        inputs, network = self.buffers.inputs, self._packed.network
        batch = EncoderBatch(
            input_ids=inputs.input_ids,
            whole_word_ids=inputs.whole_word_ids,
            category_ids=inputs.category_ids,
            features=inputs.features.to(network.shared.dtype),
            rows=rows,
        )
        return network.memorise(batch, self._encoder_positions)

    def _item_search(self) -> ItemSearch:
        inputs = self.buffers.inputs
        eligibility = BatchEligibility(
            cumulative=self._arrays.cumulative,
            base_offset=inputs.base_offset,
            base_weight=inputs.base_weight,
            listed=inputs.listed,
            list_sign=inputs.list_sign,
        )
        return ItemSearch(
            nodes=self._arrays.nodes,
            roots=inputs.roots.long(),
            depths=inputs.depths,
            eligibility=eligibility,
            options=inputs.options,
            num_beams=self.shape.bucket.num_beams,
            max_children=self.shape.max_children,
            special=SPECIAL,
            boosts=self._batch_boosts() if self.shape.bucket.is_boosted else None,
        )

    def _batch_boosts(self) -> BatchBoosts:
        inputs = self.buffers.inputs
        return BatchBoosts(
            sources=self._arrays.sources,
            tables=self._boosts,
            offset=inputs.boost_offset,
            weight=inputs.boost_weight,
            patched=inputs.patched,
            patches=inputs.patches,
        )

    def reads_boosts(self, boosts: Tensor) -> bool:
        """Whether this is the buffer of the boosts that the search reads, if any."""
        return not self.shape.bucket.is_boosted or self._boosts is boosts


class _TreeStepper:
    def __init__(self, network: Vip5Network, tree: BeamTree, memory: Memory, rows: RowIndex) -> None:
        self._network = network
        self._tree = tree
        self._memory = memory
        self._rows = rows

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        self._tree.branch(parents)
        return self._network.grow(tokens, self._tree, self._memory, self._rows)


def num_images(bucket: Bucket, network: Vip5Network) -> int:
    """Capacity for images of a bucket."""
    return bucket.num_tokens // TOKENS_PER_IMAGE if network.feature_dim else 0

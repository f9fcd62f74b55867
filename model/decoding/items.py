"""Constrained beam search: ranks the items of a trie by the probability of their identifiers under the model.

Only eligible leaves can result. With a length penalty of 0 the result equals Hugging Face's search with
`early_stopping=False` over the same trie. Each row keeps the largest upper bound of its pruned candidates; items that
score higher are proven to be the true top (docs/decisions/0003-what-counts-as-proven.md).
"""

# B rows, K beams, n running beams (1 in the first step), M capacity for children, C candidates, R items kept (K),
# V vocabulary, L steps

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.beams import NEG_INF, SpecialIds, Stepper, best_pruned, select
from model.decoding.trie_arena import TrieNodes

T = TypeVar("T")
U = TypeVar("U")

EXACTNESS_MARGIN = 1e-4
"""Nats by which a score must exceed the bound to count as proven; larger than float32 rounding errors."""


@dataclass(frozen=True)
class RowOptions(Generic[T]):
    """Options that may differ between the rows of a batch. In a search each is a column [B, 1]."""

    num_beams: T  # at most the search's K
    k: T  # number of items requested, at most num_beams
    length_penalty: T

    def convert(self, convert: Callable[[T], U]) -> RowOptions[U]:
        return RowOptions(**{each.name: convert(getattr(self, each.name)) for each in fields(self)})


ROW_OPTION_TYPES = RowOptions(num_beams=torch.int32, k=torch.int32, length_penalty=torch.float32)
"""Types of the columns in static buffers, where unused rows have 0 unless SearchBuffers.clear sets another value."""


@dataclass(frozen=True)
class ItemSearch:
    """A batch of searches over the tries of an arena, with up to `num_beams` (K) beams per row.

    `max_children` [L] is, for each step, an upper bound of the number of children of a row's beams.
    """

    nodes: TrieNodes
    roots: Tensor  # [B, 1], int64, root node of each row's trie in the arena
    depths: Tensor  # [B, 1], length of the longest identifier of each row's trie, with `</s>`
    eligibility: BatchEligibility
    options: RowOptions[Tensor]
    num_beams: int
    max_children: tuple[int, ...]
    special: SpecialIds


@dataclass(frozen=True)
class ItemBeams:
    """Result of a search: finished items, best first; NEG_INF scores beyond the last."""

    scores: Tensor  # [B, R]
    leaves: Tensor  # [B, R]
    bound: Tensor  # [B], upper bound of all pruned scores


@dataclass
class _State:
    scores: Tensor  # [B, n], sums of log-probabilities of the running beams
    nodes: Tensor  # [B, n], their nodes in the arena
    finished_scores: Tensor  # [B, R]
    finished_leaves: Tensor  # [B, R]
    bound: Tensor  # [B]


@dataclass(frozen=True)
class _Candidates:
    """The best candidates of a step, best first: each leads from a parent beam to a node."""

    scores: Tensor  # [B, C]
    parents: Tensor
    nodes: Tensor
    tokens: Tensor


def search_items(search: ItemSearch, stepper: Stepper, *, prunes_early: bool = True) -> ItemBeams:
    """Run up to the end of the longest identifier.

    `prunes_early` removes, after each step, the running beams that cannot change the k best items, and ends when none
    is left. That reads values back from the device; without it, all shapes depend on `search` only, as CUDA graphs
    require. The k best items are the same.
    """
    state = _start(search)
    tokens = torch.full_like(state.nodes, search.special.start)
    parents: Tensor | None = None
    for step, max_children in enumerate(search.max_children):
        logits = stepper.step(tokens, parents)
        children = _Children.of(state, search.nodes)
        capacity = children.count() if prunes_early else max_children
        candidates = _expand(search, state, children, logits, capacity)
        tokens, parents = _advance(search, state, candidates, step)
        if prunes_early:
            num_viable = _prune_beams(state, search, step)
            if num_viable == 0:
                break
            tokens, parents = tokens[:, :num_viable], parents[:, :num_viable]
    return ItemBeams(scores=state.finished_scores, leaves=state.finished_leaves, bound=state.bound)


def _start(search: ItemSearch) -> _State:
    num_rows, device = search.roots.shape[0], search.roots.device
    return _State(
        scores=torch.zeros(num_rows, 1, device=device),
        nodes=search.roots,
        finished_scores=torch.full((num_rows, search.num_beams), NEG_INF, device=device),
        finished_leaves=torch.zeros(num_rows, search.num_beams, dtype=torch.int64, device=device),
        bound=torch.full((num_rows,), NEG_INF, device=device),
    )


@dataclass(frozen=True)
class _Children:
    """Children of a row's running beams, concatenated in the order of the beams; unused beams have none."""

    ends: Tensor  # [B, n], number of children of the beams up to this one
    shifts: Tensor  # [B, n], added to a child's position in the row, gives its node in the arena

    @classmethod
    def of(cls, state: _State, nodes: TrieNodes) -> _Children:
        first = nodes.first_child[state.nodes]
        counts = (nodes.first_child[state.nodes + 1] - first) * (state.scores > NEG_INF)
        ends = counts.cumsum(1)
        return cls(ends=ends, shifts=first - ends + counts)

    def count(self) -> int:
        """Children of the row with the most, at least 1. Reads from the device."""
        return max(1, int(self.ends[:, -1].max()))


def _expand(search: ItemSearch, state: _State, children: _Children, logits: Tensor, capacity: int) -> _Candidates:
    """Score every eligible child of every running beam and keep the best 2·K + 1."""
    places = torch.arange(capacity, device=logits.device).expand(logits.shape[0], capacity)  # [B, M]
    is_child = places < children.ends[:, -1:]
    parents = torch.searchsorted(children.ends, places.contiguous(), right=True).clamp(max=logits.shape[1] - 1)
    # Unused places point to the root, whose interval of leaves is valid for the row's eligibility.
    nodes = torch.where(is_child, children.shifts.gather(1, parents) + places, search.roots)
    tokens = search.nodes.token[nodes].long()
    counts = search.eligibility.count(search.nodes.leaf_lo[nodes], search.nodes.leaf_hi[nodes])
    log_probs = logits.log_softmax(-1).flatten(1).gather(1, parents * logits.shape[2] + tokens)
    scores = state.scores.gather(1, parents) + log_probs
    scores = torch.where(is_child & (counts > 0), scores, NEG_INF)
    best, index = scores.topk(min(2 * search.num_beams + 1, capacity), dim=1)
    return _Candidates(
        scores=best,
        parents=parents.gather(1, index),
        nodes=nodes.gather(1, index),
        tokens=tokens.gather(1, index),
    )


def _advance(search: ItemSearch, state: _State, candidates: _Candidates, step: int) -> tuple[Tensor, Tensor]:
    """Finish, continue or prune candidates; returns the next tokens [B, K] and their parents [B, K]."""
    is_eos = candidates.tokens == search.special.eos
    selection = select(candidates.scores, is_eos, search.num_beams, search.options.num_beams)
    penalised = candidates.scores / (step + 1) ** search.options.length_penalty
    # Candidates beyond the 2·K + 1 may include a `</s>`, which ends earlier than a pruned prefix.
    attainable = torch.maximum(penalised, _attainable(candidates.scores, search, step))
    upper_bounds = torch.where(is_eos, penalised, attainable)
    state.bound = torch.maximum(state.bound, best_pruned(selection, upper_bounds))
    finished = torch.where(selection.is_finished, penalised, NEG_INF)
    _finish(state, finished, search.nodes.leaf_lo[candidates.nodes], search.options.num_beams)
    state.scores = selection.next_scores
    state.nodes = candidates.nodes.gather(1, selection.next_index)
    tokens = candidates.tokens.gather(1, selection.next_index)
    return tokens, candidates.parents.gather(1, selection.next_index)


def _finish(state: _State, scores: Tensor, leaves: Tensor, num_beams: Tensor) -> None:
    """Merge newly finished items, or NEG_INF, into the best of each row."""
    num_kept = state.finished_scores.shape[1]
    all_scores = torch.cat([state.finished_scores, scores], dim=1)
    all_leaves = torch.cat([state.finished_leaves, leaves.long()], dim=1)
    best, index = all_scores.topk(num_kept, dim=1)
    is_kept = torch.arange(num_kept, device=best.device) < num_beams
    state.finished_scores = torch.where(is_kept, best, NEG_INF)
    state.finished_leaves = all_leaves.gather(1, index)


def _attainable(scores: Tensor, search: ItemSearch, step: int) -> Tensor:
    """Upper bound of a prefix's final score: its sum can only fall, and its length grow to the trie's depth."""
    length_penalty = search.options.length_penalty
    length = torch.where(length_penalty > 0, search.depths, step + 2).to(scores.dtype)
    return scores / length**length_penalty


def _prune_beams(state: _State, search: ItemSearch, step: int) -> int:
    """Remove beams that cannot exceed the score of their row's k-th item; returns how many are left.

    Beams are sorted by score, and all rows keep as many as the row with the most viable ones. Removed beams count as
    pruned; a beam close enough to leave the k items unproven is kept.
    """
    kth_score = state.finished_scores.gather(1, search.options.k.long() - 1)
    attainable = _attainable(state.scores, search, step)
    num_viable = int((attainable > kth_score - 2 * EXACTNESS_MARGIN).sum(1).max())
    dropped = attainable[:, num_viable:]
    if dropped.shape[1]:
        state.bound = torch.maximum(state.bound, dropped.amax(1))
    state.scores, state.nodes = state.scores[:, :num_viable], state.nodes[:, :num_viable]
    return num_viable


def exact_prefixes(beams: ItemBeams, counts: Sequence[int], margin: float = EXACTNESS_MARGIN) -> list[int]:
    """For each row, how many of its first `counts` items are proven to be the true top."""
    is_proven = beams.scores > (beams.bound + margin).unsqueeze(1)
    lengths = functional.pad(is_proven, (0, 1)).int().argmin(1).tolist()
    return [min(length, count) for length, count in zip(lengths, counts, strict=True)]

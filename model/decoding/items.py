"""Constrained beam search: ranks the items of a trie by the probability of their identifiers under the model.

Only eligible leaves can result. With a length penalty of 0 the result equals Hugging Face's search with
`early_stopping=False` over the same trie. Each row keeps the largest upper bound of its pruned candidates; items that
score higher are proven to be the true top (docs/decisions/0003-what-counts-as-proven.md).

With boosts, all of that is about sums of log-probabilities and boosts: a beam counts with the largest boost of the
eligible leaves below it, an item with its own.
"""

# B rows, K beams, n running beams (1 in the first step), M capacity for children, C candidates, R items kept (K),
# V vocabulary, L steps

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from model.decoding.batch_boosts import BatchBoosts
from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.beams import NEG_INF, SpecialIds
from model.decoding.logits import StepLogits, child_log_probs, num_beams_of
from model.decoding.nodes import NodeRows, Nodes, rows_at

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

    nodes: Nodes
    roots: Tensor  # [B, 1], int64, root node of each row's trie in the arena
    depths: Tensor  # [B, 1], length of the longest identifier of each row's trie, with `</s>`
    eligibility: BatchEligibility
    options: RowOptions[Tensor]
    num_beams: int
    max_children: tuple[int, ...]
    special: SpecialIds
    boosts: BatchBoosts | None = None


class ItemStepper(Protocol):
    """The decoder, for a search for items: as Stepper, but logits may be rounded."""

    def step(self, tokens: Tensor, parents: Tensor | None) -> StepLogits: ...


@dataclass(frozen=True)
class ItemBeams:
    """Result of a search: finished items, best first; NEG_INF scores beyond the last."""

    scores: Tensor  # [B, R], with boosts
    leaves: Tensor  # [B, R]
    bound: Tensor  # [B], upper bound of all pruned scores
    model_scores: Tensor | None = None  # [B, R], without boosts; None for a search without any


@dataclass(frozen=True)
class SearchRanges:
    """Tensors that depend only on the shape of a search, so that a captured search need not make them."""

    scores: Tensor  # [B, 1], zeros: the scores of the first beams
    tokens: Tensor  # [B, 1], the start token
    nothing: Tensor  # [B, K], NEG_INF
    no_leaves: Tensor  # [B, K], zeros
    ranks: Tensor  # [2·K + 1]
    lengths: Tensor  # [L], float32, 1, 2, …
    places: tuple[Tensor, ...]  # for each step, [B, M]: 0, 1, …; empty if capacities are not known beforehand

    @classmethod
    def of(cls, search: ItemSearch, *, knows_places: bool = True) -> SearchRanges:
        """Ranges for searches of this shape; without `knows_places` the capacities are found in each step."""
        num_rows, device = len(search.roots), search.roots.device
        kept = (num_rows, search.num_beams)
        capacities = search.max_children if knows_places else ()
        return cls(
            scores=torch.zeros(num_rows, 1, device=device),
            tokens=torch.full((num_rows, 1), search.special.start, dtype=torch.int64, device=device),
            nothing=torch.full(kept, NEG_INF, device=device),
            no_leaves=torch.zeros(kept, dtype=torch.int32, device=device),
            ranks=torch.arange(2 * search.num_beams + 1, device=device),
            lengths=torch.arange(1, len(search.max_children) + 1, device=device, dtype=torch.float32),
            places=tuple(_places(num_rows, capacity, device) for capacity in capacities),
        )


def _places(num_rows: int, capacity: int, device: torch.device) -> Tensor:
    return torch.arange(capacity, device=device).expand(num_rows, capacity).contiguous()


@dataclass
class _State:
    scores: Tensor  # [B, n], sums of log-probabilities of the running beams
    boosted: Tensor  # [B, n], with the largest boost below each; without boosts, the same
    nodes: NodeRows  # [B, n]
    finished_scores: Tensor  # [B, R]; those beyond a row's own number of beams are dropped at the end
    finished_model_scores: Tensor  # [B, R], without boosts
    finished_leaves: Tensor  # [B, R]
    bound: Tensor  # [B, 1]
    nothing: Tensor  # [B, 1], NEG_INF


@dataclass(frozen=True)
class _Divisors:
    """What the items below a prefix may get their sums divided by."""

    largest: Tensor  # [B, L]
    smallest: Tensor | None  # [B, L]; None if no sum is above 0, as without boosts, or if it equals the largest

    def highest(self, sums: Tensor, step: int) -> Tensor:
        """The highest score that items below prefixes with these sums [B, n] may get."""
        highest = sums / self.largest[:, step : step + 1]
        if self.smallest is None:
            return highest
        return torch.where(sums > 0, sums / self.smallest[:, step : step + 1], highest)


@dataclass(frozen=True)
class _Limits:
    """What a row's options mean for every step."""

    is_within: Tensor  # [B, 2·K + 1], bool, whether a rank is below the row's number of beams
    num_beams: Tensor  # [B, 1], int64
    divisors: Tensor  # [B, L], of the score of an item that ends in a step
    beams: _Divisors  # of a beam after a step
    pruned: _Divisors  # of a candidate that is not looked at: it may also end in this step

    @classmethod
    def of(cls, search: ItemSearch, ranges: SearchRanges, *, may_read: bool) -> _Limits:
        """Without `may_read`, no value is read back from the device."""
        penalty = search.options.length_penalty
        ends = ranges.lengths**penalty
        # A beam ends at least one step later, or with a reward for length as late as its trie allows. Sums are
        # negative: the highest score comes from the largest divisor.
        latest = torch.where(penalty > 0, search.depths, ranges.lengths + 1)
        later = latest**penalty
        soonest = None
        if search.boosts is not None and not (may_read and not bool(penalty.any())):
            soonest = torch.where(penalty > 0, ranges.lengths + 1, search.depths) ** penalty
        return cls(
            is_within=ranges.ranks < search.options.num_beams,
            num_beams=search.options.num_beams.long(),
            divisors=ends,
            beams=_Divisors(later, soonest),
            pruned=_Divisors(torch.maximum(ends, later), None if soonest is None else torch.minimum(ends, soonest)),
        )


@dataclass(frozen=True)
class _Candidates:
    """The best candidates of a step, best first: each leads from a parent beam to a node."""

    scores: Tensor  # [B, C], with the largest boost below each
    sums: Tensor  # [B, C], of log-probabilities only
    parents: Tensor
    nodes: NodeRows


def search_items(
    search: ItemSearch, stepper: ItemStepper, *, prunes_early: bool = True, ranges: SearchRanges | None = None
) -> ItemBeams:
    """Run up to the end of the longest identifier.

    `prunes_early` removes, after each step, the running beams that cannot change the k best items, and ends when none
    is left. That reads values back from the device; without it, all shapes depend on `search` only, as CUDA graphs
    require. The k best items are the same.
    """
    if ranges is None:
        ranges = SearchRanges.of(search, knows_places=not prunes_early)
    limits = _Limits.of(search, ranges, may_read=prunes_early)
    state = _State(
        scores=ranges.scores,
        boosted=ranges.scores,
        nodes=rows_at(search.nodes, search.roots),
        finished_scores=ranges.nothing,
        finished_model_scores=ranges.nothing,
        finished_leaves=ranges.no_leaves,
        bound=ranges.nothing[:, :1],
        nothing=ranges.nothing[:, :1],
    )
    tokens, parents = ranges.tokens, None
    num_steps = len(search.max_children)
    for step in range(num_steps):
        logits = stepper.step(tokens, parents)
        children = _Children.of(state)
        candidates = _expand(
            search, state, children, logits, children.places() if prunes_early else ranges.places[step]
        )
        is_eos = candidates.nodes.tokens == search.special.eos
        _finish(search, state, limits, candidates, is_eos, step)
        if step + 1 == num_steps:
            break  # every identifier has ended
        tokens, parents = _continue(search, state, limits, candidates, is_eos, step)
        if prunes_early:
            num_viable = _prune_beams(state, search, limits, step)
            if num_viable == 0:
                break
            tokens, parents = tokens[:, :num_viable], parents[:, :num_viable]
    is_kept = limits.is_within[:, : search.num_beams]
    scores = torch.where(is_kept, state.finished_scores, ranges.nothing)
    return ItemBeams(
        scores=scores,
        leaves=state.finished_leaves,
        bound=state.bound.squeeze(1),
        model_scores=None if search.boosts is None else state.finished_model_scores,
    )


@dataclass(frozen=True)
class _Children:
    """Children of a row's running beams, concatenated in the order of the beams; unused beams have none."""

    ends: Tensor  # [B, n], number of children of the beams up to this one
    shifts: Tensor  # [B, n], added to a child's position in the row, gives its node

    @classmethod
    def of(cls, state: _State) -> _Children:
        end = state.nodes.end_children
        counts = (end - state.nodes.first_children) * (state.scores > NEG_INF)
        ends = counts.cumsum(1)
        return cls(ends=ends, shifts=end - ends)

    def places(self) -> Tensor:
        """As many places as the row with the most children has, at least 1."""
        return _places(len(self.ends), max(1, int(self.ends[:, -1].max())), self.ends.device)


def _expand(search: ItemSearch, state: _State, children: _Children, logits: StepLogits, places: Tensor) -> _Candidates:
    """The best children of the running beams, with some eligible leaf below them; `places` are 0, 1, … [B, M]."""
    parents = torch.searchsorted(children.ends, places, right=True)
    is_child = parents < num_beams_of(logits)
    parents = parents.clamp(max=num_beams_of(logits) - 1)
    # Unused places point to the root, whose interval of leaves is valid for the row's eligibility.
    numbers = torch.where(is_child, children.shifts.gather(1, parents) + places, search.roots)
    nodes = rows_at(search.nodes, numbers)
    counts = search.eligibility.count(nodes.intervals)
    sums = child_log_probs(logits, parents, nodes.tokens, is_child) + state.scores.gather(1, parents)
    sums = torch.where(is_child & (counts > 0), sums, state.nothing)
    scores = sums if search.boosts is None else sums + search.boosts.largest(numbers)
    best, index = scores.topk(min(2 * search.num_beams + 1, scores.shape[1]), dim=1)
    return _Candidates(
        scores=best,
        sums=best if search.boosts is None else sums.gather(1, index),
        parents=parents.gather(1, index),
        nodes=nodes.gather(index),
    )


def _finish(
    search: ItemSearch, state: _State, limits: _Limits, candidates: _Candidates, is_eos: Tensor, step: int
) -> None:
    """Keep the identifiers that end among the best candidates of each row; the bound covers the others that end."""
    is_within = limits.is_within[:, : candidates.scores.shape[1]]
    divisors = limits.divisors[:, step : step + 1]
    ended = torch.where(is_eos, candidates.scores / divisors, state.nothing)
    scores = torch.cat([state.finished_scores, torch.where(is_within, ended, state.nothing)], dim=1)
    leaves = torch.cat([state.finished_leaves, candidates.nodes.first_leaves], dim=1)
    state.bound = torch.maximum(state.bound, ended.masked_fill_(is_within, NEG_INF).amax(1, keepdim=True))
    state.finished_scores, index = scores.topk(search.num_beams, dim=1)
    state.finished_leaves = leaves.gather(1, index)
    if search.boosts is not None:
        model_scores = torch.cat([state.finished_model_scores, candidates.sums / divisors], dim=1)
        state.finished_model_scores = model_scores.gather(1, index)


def _continue(
    search: ItemSearch, state: _State, limits: _Limits, candidates: _Candidates, is_eos: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Continue the best open candidates; the bound covers all others. Returns tokens and parents, each [B, K]."""
    num_beams = search.num_beams
    scores = candidates.scores.masked_fill(is_eos, NEG_INF)
    missing = num_beams + 1 - scores.shape[1]
    if missing > 0:
        scores = functional.pad(scores, (0, missing), value=NEG_INF)
    best, index = scores.topk(num_beams + 1, dim=1)
    # At most K of the 2·K + 1 end, one a beam, so the next open one is among them if any candidate is not.
    pruned = best.gather(1, limits.num_beams)
    state.bound = torch.maximum(state.bound, limits.pruned.highest(pruned, step))
    if missing > 0:
        index = index.clamp(max=candidates.scores.shape[1] - 1)
    index = index[:, :num_beams]
    state.boosted = torch.where(limits.is_within[:, :num_beams], best[:, :num_beams], state.nothing)
    state.scores = state.boosted
    if search.boosts is not None:
        state.scores = torch.where(state.boosted > NEG_INF, candidates.sums.gather(1, index), state.nothing)
    state.nodes = candidates.nodes.gather(index)
    return state.nodes.tokens, candidates.parents.gather(1, index)


def _prune_beams(state: _State, search: ItemSearch, limits: _Limits, step: int) -> int:
    """Remove beams that cannot exceed the score of their row's k-th item; returns how many are left.

    Beams are sorted by score, and all rows keep as many as the row with the most viable ones. Removed beams count as
    pruned; a beam close enough to leave the k items unproven is kept.
    """
    kth_score = state.finished_scores.gather(1, search.options.k.long() - 1)
    attainable = limits.beams.highest(state.boosted, step)
    num_viable = int((attainable > kth_score - 2 * EXACTNESS_MARGIN).sum(1).max())
    dropped = attainable[:, num_viable:]
    if dropped.shape[1]:
        state.bound = torch.maximum(state.bound, dropped.amax(1, keepdim=True))
    state.scores, state.nodes = state.scores[:, :num_viable], state.nodes.narrow(num_viable)
    state.boosted = state.boosted[:, :num_viable]
    return num_viable


def exact_prefixes(beams: ItemBeams, counts: Sequence[int], margin: float = EXACTNESS_MARGIN) -> list[int]:
    """For each row, how many of its first `counts` items are proven to be the true top."""
    is_proven = beams.scores > (beams.bound + margin).unsqueeze(1)
    lengths = functional.pad(is_proven, (0, 1)).int().argmin(1).tolist()
    return [min(length, count) for length, count in zip(lengths, counts, strict=True)]

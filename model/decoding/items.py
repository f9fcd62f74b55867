"""Constrained beam search: ranks the items of a trie by the probability that the model gives their identifiers.

Nothing but eligible leaves can come out. With a length penalty of 0 the result is that of Hugging Face's search with
`early_stopping=False` over the same trie. A row's best upper bound of everything that was pruned says how much of its
answer is proven to be the true top.
"""

# B rows, K beams, n beams that run (1 in the first step), M room for children, C candidates, R items kept (K),
# V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.beams import DEAD, SpecialIds, Stepper, best_pruned, select
from model.decoding.trie import TrieNodes

T = TypeVar("T")
U = TypeVar("U")

EXACTNESS_MARGIN = 1e-4
"""Nats by which a score must beat the bound to count as proven: more than float32's noise."""


@dataclass(frozen=True)
class RowOptions(Generic[T]):
    """Options that each row has for itself; in a search, columns [B, 1]."""

    beams: T  # at most the search's K
    wanted: T  # how many items are asked for, at most `beams`
    length_penalty: T

    def convert(self, convert: Callable[[T], U]) -> RowOptions[U]:
        return RowOptions(**{each.name: convert(getattr(self, each.name)) for each in fields(self)})


ROW_OPTION_TYPES = RowOptions(beams=torch.int32, wanted=torch.int32, length_penalty=torch.float32)


@dataclass(frozen=True)
class ItemSearch:
    """A batch of searches over the tries of an arena, with room for `num_beams` (K) beams a row.

    `most_children` holds, for each step, at least as many as the beams of any row can have children: [L].
    """

    nodes: TrieNodes
    roots: Tensor  # [B, 1], int64, where in the arena the rows' tries begin
    depths: Tensor  # [B, 1], longest identifier of each row's trie, in tokens with `</s>`
    eligibility: BatchEligibility
    options: RowOptions[Tensor]
    num_beams: int
    most_children: tuple[int, ...]
    special: SpecialIds


@dataclass(frozen=True)
class ItemBeams:
    """Result of a search: finished items best first, DEAD scores where there are fewer."""

    scores: Tensor  # [B, R]
    leaves: Tensor  # [B, R]
    bound: Tensor  # [B], nothing that was pruned can score higher


@dataclass
class _State:
    scores: Tensor  # [B, n], sums of log-probabilities of the running beams
    nodes: Tensor  # [B, n], where in the arena they are
    finished_scores: Tensor  # [B, R]
    finished_leaves: Tensor  # [B, R]
    bound: Tensor  # [B]


@dataclass(frozen=True)
class _Candidates:
    """The best candidates of a step, sorted; parents and nodes tell where each one comes from and leads to."""

    scores: Tensor  # [B, C]
    parents: Tensor
    nodes: Tensor
    tokens: Tensor


def search_items(search: ItemSearch, stepper: Stepper, *, drops_hopeless: bool = True) -> ItemBeams:
    """Run to the end of the longest identifier.

    `drops_hopeless` takes out, after each step, the running beams that can no longer change the items asked for, and
    ends when none is left. That asks the device, so a device that must not be asked runs all steps with all beams, on
    shapes that depend on nothing but `search`'s. The items asked for are the same.
    """
    state = _start(search)
    tokens = torch.full_like(state.nodes, search.special.start)
    parents: Tensor | None = None
    for step, most_children in enumerate(search.most_children):
        logits = stepper.step(tokens, parents)
        children = _Children.of(state, search.nodes)
        room = children.count() if drops_hopeless else most_children
        candidates = _expand(search, state, children, logits, room)
        tokens, parents = _advance(search, state, candidates, step)
        if drops_hopeless:
            num_hopeful = _drop_hopeless(state, search, step)
            if num_hopeful == 0:
                break
            tokens, parents = tokens[:, :num_hopeful], parents[:, :num_hopeful]
    return ItemBeams(scores=state.finished_scores, leaves=state.finished_leaves, bound=state.bound)


def _start(search: ItemSearch) -> _State:
    num_rows, device = search.roots.shape[0], search.roots.device
    return _State(
        scores=torch.zeros(num_rows, 1, device=device),
        nodes=search.roots,
        finished_scores=torch.full((num_rows, search.num_beams), DEAD, device=device),
        finished_leaves=torch.zeros(num_rows, search.num_beams, dtype=torch.int64, device=device),
        bound=torch.full((num_rows,), DEAD, device=device),
    )


@dataclass(frozen=True)
class _Children:
    """Children of a row's running beams, one beam's after the other's; dead beams have none."""

    ends: Tensor  # [B, n], how many the beams up to this one have
    shifts: Tensor  # [B, n], from a child's place in the row to its number in the arena

    @classmethod
    def of(cls, state: _State, nodes: TrieNodes) -> _Children:
        first = nodes.first_child[state.nodes]
        counts = (nodes.first_child[state.nodes + 1] - first) * (state.scores > DEAD)
        ends = counts.cumsum(1)
        return cls(ends=ends, shifts=first - ends + counts)

    def count(self) -> int:
        """Of the row that has the most; at least 1. This asks the device."""
        return max(1, int(self.ends[:, -1].max()))


def _expand(search: ItemSearch, state: _State, children: _Children, logits: Tensor, room: int) -> _Candidates:
    """Score every eligible child of every running beam and keep the best 2·K + 1."""
    places = torch.arange(room, device=logits.device).expand(logits.shape[0], room)  # [B, M]
    is_child = places < children.ends[:, -1:]
    parents = torch.searchsorted(children.ends, places.contiguous(), right=True).clamp(max=logits.shape[1] - 1)
    # What is no child stands at the root, whose leaves are the row's.
    nodes = torch.where(is_child, children.shifts.gather(1, parents) + places, search.roots)
    tokens = search.nodes.token[nodes].long()
    counts = search.eligibility.count(search.nodes.leaf_lo[nodes], search.nodes.leaf_hi[nodes])
    log_probs = logits.log_softmax(-1).flatten(1).gather(1, parents * logits.shape[2] + tokens)
    scores = state.scores.gather(1, parents) + log_probs
    scores = torch.where(is_child & (counts > 0), scores, DEAD)
    best, index = scores.topk(min(2 * search.num_beams + 1, room), dim=1)
    return _Candidates(
        scores=best,
        parents=parents.gather(1, index),
        nodes=nodes.gather(1, index),
        tokens=tokens.gather(1, index),
    )


def _advance(search: ItemSearch, state: _State, candidates: _Candidates, step: int) -> tuple[Tensor, Tensor]:
    """Finish, go on or prune; returns the next tokens [B, K] and their parents [B, K]."""
    is_eos = candidates.tokens == search.special.eos
    selection = select(candidates.scores, is_eos, search.num_beams, search.options.beams)
    penalised = candidates.scores / (step + 1) ** search.options.length_penalty
    # Among what the candidates leave out may be a `</s>`, which ends sooner than any pruned prefix can.
    attainable = torch.maximum(penalised, _attainable(candidates.scores, search, step))
    upper_bounds = torch.where(is_eos, penalised, attainable)
    state.bound = torch.maximum(state.bound, best_pruned(selection, upper_bounds))
    finished = torch.where(selection.is_finished, penalised, DEAD)
    _finish(state, finished, search.nodes.leaf_lo[candidates.nodes], search.options.beams)
    state.scores = selection.next_scores
    state.nodes = candidates.nodes.gather(1, selection.next_index)
    tokens = candidates.tokens.gather(1, selection.next_index)
    return tokens, candidates.parents.gather(1, selection.next_index)


def _finish(state: _State, scores: Tensor, leaves: Tensor, beams: Tensor) -> None:
    """Merge newly finished items, DEAD where none, into the best of each row."""
    num_kept = state.finished_scores.shape[1]
    all_scores = torch.cat([state.finished_scores, scores], dim=1)
    all_leaves = torch.cat([state.finished_leaves, leaves.long()], dim=1)
    best, index = all_scores.topk(num_kept, dim=1)
    is_kept = torch.arange(num_kept, device=best.device) < beams
    state.finished_scores = torch.where(is_kept, best, DEAD)
    state.finished_leaves = all_leaves.gather(1, index)


def _attainable(scores: Tensor, search: ItemSearch, step: int) -> Tensor:
    """Best final score that a prefix may still reach: its sum can only fall, its length grow to the longest."""
    length_penalty = search.options.length_penalty
    length = torch.where(length_penalty > 0, search.depths, step + 2).to(scores.dtype)
    return scores / length**length_penalty


def _drop_hopeless(state: _State, search: ItemSearch, step: int) -> int:
    """Keep the beams of each row that may still reach a better score than the last of the items asked for.

    Beams are sorted by score, so those of a row are its first; as many are kept as the row with the most has. Returns
    that number. What is dropped counts as pruned; a beam so near that it would leave the items unproven is kept.
    """
    last_wanted = state.finished_scores.gather(1, search.options.wanted.long() - 1)
    attainable = _attainable(state.scores, search, step)
    num_hopeful = int((attainable > last_wanted - 2 * EXACTNESS_MARGIN).sum(1).max())
    dropped = attainable[:, num_hopeful:]
    if dropped.shape[1]:
        state.bound = torch.maximum(state.bound, dropped.amax(1))
    state.scores, state.nodes = state.scores[:, :num_hopeful], state.nodes[:, :num_hopeful]
    return num_hopeful


def exact_prefixes(beams: ItemBeams, counts: Sequence[int], margin: float = EXACTNESS_MARGIN) -> list[int]:
    """For each row, how many of its first `counts` items provably are the true top."""
    is_proven = beams.scores > (beams.bound + margin).unsqueeze(1)
    lengths = functional.pad(is_proven, (0, 1)).int().argmin(1).tolist()
    return [min(length, count) for length, count in zip(lengths, counts, strict=True)]

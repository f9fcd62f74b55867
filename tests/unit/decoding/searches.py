"""Requests to the item search over random catalogs, and their brute-force results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.decoding.batch_boosts import PADDING, BatchBoosts
from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.items import ItemSearch, RowOptions, exact_prefixes, search_items
from model.decoding.leaf_boosts import Boosts, BoostTable
from model.decoding.leaf_intervals import NOTHING
from model.decoding.trie_arena import TrieArena
from tests.unit.decoding.tables import SPECIAL, LogitsOf, Path, PathStepper, build_trie, item_scores, random_table

VOCAB_SIZE = 7
_TOKENS = st.integers(2, VOCAB_SIZE - 1)

CATALOGS = st.lists(st.lists(_TOKENS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=16, unique=True)


_CODES = st.tuples(st.integers(2, 3), st.integers(3, 5), st.integers(2, VOCAB_SIZE - 1))
CODES = st.lists(_CODES.map(tuple), min_size=1, max_size=24, unique=True)
"""Identifiers of two codes and a last one, of which many share their codes."""


@dataclass(frozen=True)
class Request:
    """One row of a batch; leaves are named by their item's place in the catalog."""

    catalog: int
    table: LogitsOf
    num_beams: int
    wanted: int
    length_penalty: float
    active: tuple[bool, ...]
    exclude: frozenset[int]
    include: frozenset[int] | None
    boosts: tuple[float, ...] | None = None
    """Of all items, by a table; None for a request without boosts."""
    extra: tuple[tuple[int, float], ...] = ()
    """Of a few items, beyond the table's."""

    def is_eligible(self, row: int) -> bool:
        return self.active[row] and row not in self.exclude and (self.include is None or row in self.include)


@dataclass(frozen=True)
class Found:
    """The k best items found, best first."""

    rows: list[int]
    scores: list[float]
    exact_prefix: int
    model_scores: list[float]


@dataclass(frozen=True)
class Batch:
    """Catalogs side by side in an arena, and requests to them."""

    catalogs: tuple[list[Path], ...]
    requests: tuple[Request, ...]

    def search(self, *, prunes_early: bool = True, stepper: PathStepper | None = None) -> list[Found]:
        arena = TrieArena.of([build_trie(items) for items in self.catalogs])
        tries = [arena.tries[request.catalog] for request in self.requests]
        options = RowOptions(
            num_beams=torch.tensor([[request.num_beams] for request in self.requests]),
            k=torch.tensor([[request.wanted] for request in self.requests]),
            length_penalty=torch.tensor([[request.length_penalty] for request in self.requests]),
        )
        most = max(request.num_beams for request in self.requests)
        stepper = stepper or PathStepper([request.table for request in self.requests])
        max_children = arena.max_children([request.catalog for request in self.requests], most)
        search = ItemSearch(
            nodes=arena.nodes,
            roots=torch.tensor([[arena.roots[request.catalog]] for request in self.requests]),
            depths=torch.tensor([[trie.depth] for trie in tries]),
            eligibility=BatchEligibility.of([_eligibility(request, arena) for request in self.requests]),
            options=options,
            num_beams=most,
            max_children=max_children,
            special=SPECIAL,
            boosts=self._boosts(arena),
        )
        beams = search_items(search, stepper, prunes_early=prunes_early)
        found = (beams.scores > float("-inf")).sum(1).tolist()
        counts = [min(request.wanted, number) for request, number in zip(self.requests, found, strict=True)]
        return [
            Found(
                rows=trie.rows_of_leaves[beams.leaves[row, :count].numpy()].tolist(),
                scores=beams.scores[row, :count].tolist(),
                exact_prefix=proven,
                model_scores=(beams.scores if beams.model_scores is None else beams.model_scores)[row, :count].tolist(),
            )
            for row, (trie, count, proven) in enumerate(zip(tries, counts, exact_prefixes(beams, counts), strict=True))
        ]

    def alone(self, request: Request) -> Batch:
        return Batch(self.catalogs, (request,))

    def scores(self, request: Request) -> NDArray[np.float64]:
        """Brute force: the final score of every item of the request's catalog."""
        boosts = np.zeros(len(self.catalogs[request.catalog]))
        if request.boosts is not None:
            boosts += np.array(request.boosts)
            for row, extra in request.extra:
                boosts[row] += extra
        return item_scores(request.table, self.catalogs[request.catalog], request.length_penalty, boosts)

    def model_scores(self, request: Request) -> NDArray[np.float64]:
        """Brute force: the same without boosts."""
        return item_scores(request.table, self.catalogs[request.catalog], request.length_penalty)

    def _boosts(self, arena: TrieArena) -> BatchBoosts | None:
        if all(request.boosts is None for request in self.requests):
            return None
        tables, offsets = [np.zeros(1, dtype=np.float32)], list[int]()
        rows = []
        for request in self.requests:
            own = _boosts_of(request, arena)
            offsets.append(0 if own is None or request.include is not None else sum(map(len, tables)))
            if own is not None:
                tables.append(own.table.maxima)
            rows.append(None if own is None else own.patches(_eligibility(request, arena)))
        width = 1 + max(0 if row is None else len(row) for row in rows)
        patched, patches = np.full((len(rows), width), PADDING, np.int32), np.zeros((len(rows), width), np.float32)
        for number, row in enumerate(rows):
            if row is not None:
                patched[number, : len(row)], patches[number, : len(row)] = row.sources, row.values
        offset = torch.tensor(offsets, dtype=torch.int32).unsqueeze(1)
        return BatchBoosts(
            sources=arena.nodes.source,
            tables=torch.from_numpy(np.concatenate(tables)),
            offset=offset,
            weight=(offset > 0).int(),
            patched=torch.from_numpy(patched),
            patches=torch.from_numpy(patches),
        )

    def best(self, request: Request) -> list[int]:
        """Brute force: the eligible items, best first."""
        scores = self.scores(request)
        eligible = [row for row in range(len(scores)) if request.is_eligible(row)]
        return sorted(eligible, key=lambda row: -scores[row])


def _eligibility(request: Request, arena: TrieArena) -> Eligibility:
    trie = arena.tries[request.catalog]
    leaves = trie.leaves_of_rows.tolist()
    base = LeafMask.of(np.array(request.active)[trie.rows_of_leaves])
    include = None if request.include is None else [leaves[row] for row in request.include]
    return Eligibility.of(base, exclude=[leaves[row] for row in request.exclude], include=include)


def _boosts_of(request: Request, arena: TrieArena) -> Boosts | None:
    if request.boosts is None:
        return None
    trie, boosts = arena.tries[request.catalog], np.array(request.boosts, dtype=np.float32)
    is_member = np.array(request.active)
    extra = sorted((int(trie.leaves_of_rows[row]), nats) for row, nats in request.extra)
    return Boosts(
        BoostTable(trie.intervals, lambda: np.where(is_member, boosts, NOTHING)[trie.rows_of_leaves]),
        np.array([leaf for leaf, _ in extra], dtype=np.int32),
        np.array([nats for _, nats in extra], dtype=np.float32),
    )


@st.composite
def batches(
    draw: st.DrawFn,
    *,
    max_requests: int = 3,
    catalog: st.SearchStrategy[list[Path]] = CATALOGS,
    has_boosts: bool = False,
) -> Batch:
    """Beams from too few to more than there are items, all kinds of constraints and length penalties in one batch.

    With `has_boosts`, most requests have boosts.
    """
    catalogs = draw(st.lists(catalog, min_size=1, max_size=2))
    requests = tuple(draw(st.lists(_requests(catalogs), min_size=1, max_size=max_requests)))
    if has_boosts:
        requests = tuple(draw(_boosted(request, len(catalogs[request.catalog]))) for request in requests)
    return Batch(tuple(catalogs), requests)


@st.composite
def _boosted(draw: st.DrawFn, request: Request, num_items: int) -> Request:
    if draw(st.integers(0, 4)) == 0:
        return request
    nats = st.sampled_from([0.0, 0.0, 0.4, 0.7, 3.0, -0.7, -5.0, 12.0])
    extra = draw(st.dictionaries(st.integers(0, num_items - 1), nats, max_size=3))
    boosts = draw(st.just((0.0,) * num_items) | st.tuples(*[nats] * num_items))
    return replace(request, boosts=boosts, extra=tuple(extra.items()))


@st.composite
def _requests(draw: st.DrawFn, catalogs: Sequence[list[Path]]) -> Request:
    catalog = draw(st.integers(0, len(catalogs) - 1))
    num_items = len(catalogs[catalog])
    num_beams = draw(st.sampled_from([1, 2, 3, 4, 6, 20]))
    some = st.frozensets(st.integers(0, num_items - 1), max_size=num_items)
    everything = st.just((True,) * num_items)
    return Request(
        catalog=catalog,
        table=random_table(draw(st.integers(0, 10_000)), VOCAB_SIZE, spread=draw(st.sampled_from([0.3, 1.5, 4.0]))),
        num_beams=num_beams,
        wanted=draw(st.just(num_beams) | st.integers(1, num_beams)),
        length_penalty=draw(st.sampled_from([0.0, 0.0, 1.0, 0.5, 3.0, -0.5, -2.0])),
        active=draw(everything | st.tuples(*[st.booleans()] * num_items)),
        exclude=draw(st.just(frozenset[int]()) | some),
        include=draw(st.none() | some),
    )

"""The network as generated texts see it: rows that begin, go on and end independently of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.engine.collate import row_index
from model.engine.protocol import EncoderInput
from model.network.banks import RowIndex
from model.network.network import Vip5Network
from model.network.row_cache import RowCache, RowSelection
from model.network.stacks import Memory

Encode = Callable[[Sequence[EncoderInput]], tuple[Vip5Network, Memory]]
"""Reads prompts; the network is the one that goes on with them and with all that came before."""


class NetworkRowStepper:
    """Decodes rows at different positions, one token of each at a time."""

    def __init__(self, encode: Encode, network: Vip5Network, *, is_static: bool) -> None:
        self._encode = encode
        self._network = network
        self._cache = RowCache(network, is_static=is_static)
        self._is_static = is_static
        self._sources: dict[int, EncoderInput] = {}
        self._selection: tuple[RowSelection, RowIndex] | None = None

    def admit(self, rows: Sequence[int], sources: Sequence[EncoderInput]) -> None:
        """Read prompts; the rows must be free."""
        network, memory = self._encode(sources)
        self._cache.occupy(rows, memory, [source.prompt.num_tokens for source in sources])
        # Domains are never narrowed or moved, so rows that an earlier network began go on in a later one.
        self._network = network
        self._sources.update(zip(rows, sources, strict=True))
        self._selection = None

    def release(self, row: int) -> None:
        del self._sources[row]
        self._cache.vacate(row)
        if not self._sources:
            self._cache.release()
            self._selection = None

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Feed tokens [n] to the rows [n], all of them admitted → logits [n, V] in float32."""
        if self._cache.reserve_step():
            self._selection = None
        selection, index = self._selected(rows)
        cache = self._cache.at_step(selection)
        bias = self._cache.biases(cache.positions, cache.length)
        fed, among = tokens, None
        if self._is_static:
            among = torch.tensor(list(rows), device=tokens.device)
            fed = tokens.new_zeros(len(selection.rows)).index_copy(0, among, tokens)
        logits = self._network.step(fed.unsqueeze(1), bias, cache, selection.memory, index)[:, 0]
        self._cache.advance(rows)
        return logits if among is None else logits.index_select(0, among)

    def _selected(self, rows: Sequence[int]) -> tuple[RowSelection, RowIndex]:
        last = self._selection
        if last is not None and (self._is_static or last[0].rows == tuple(rows)):
            return last
        selection = self._cache.select(rows)
        some = next(iter(self._sources.values()))  # whatever reads a row that is free
        sources = [self._sources.get(row, some) for row in selection.rows]
        index = row_index(sources, self._network, self._network.shared.device)
        self._selection = selection, index
        return self._selection

"""Decode steps of the network for text sessions: rows begin and end independently of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.engine.collate import row_index
from model.engine.plans import Plan
from model.engine.text_rows import TextRows
from model.network.banks import RowIndex
from model.network.network import Vip5Network
from model.network.row_cache import RowSelection
from model.network.stacks import Memory

Encode = Callable[[Sequence[Plan]], tuple[Vip5Network, Memory]]
"""Encodes prompts; the returned network decodes them and all texts that were admitted before."""


class NetworkRowStepper:
    """A RowStepper over the network."""

    def __init__(self, encode: Encode, network: Vip5Network, *, is_static: bool) -> None:
        self._encode = encode
        self._network = network
        self._is_static = is_static
        self._rows: TextRows[RowIndex] = TextRows(network, self._row_index, is_static=is_static)

    def admit(self, rows: Sequence[int], plans: Sequence[Plan]) -> None:
        """Encode prompts into rows, which must be free."""
        network, memory = self._encode(plans)
        self._rows.admit(rows, plans, memory)
        # Banks never shrink and domains never move, so a later network can continue rows that an earlier one began.
        self._network = network

    def release(self, row: int) -> None:
        self._rows.release(row)

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Feed tokens [n] to rows [n], all of them admitted → logits [n, V] in float32."""
        selected = self._rows.select(rows)
        selection = selected.selection
        cache = self._rows.cache.at_step(selection)
        bias = self._rows.cache.biases(cache.positions, cache.length)
        fed, among = tokens, None
        if self._is_static:
            among = torch.tensor(list(rows), device=tokens.device)
            fed = tokens.new_zeros(len(selection.rows)).index_copy(0, among, tokens)
        logits = self._network.step(fed.unsqueeze(1), bias, cache, selection.memory, selected.shared)[:, 0]
        self._rows.cache.advance(rows)
        return logits if among is None else logits.index_select(0, among)

    def _row_index(self, _: RowSelection, plans: Sequence[Plan]) -> RowIndex:
        return row_index(plans, self._network, self._network.shared.device)

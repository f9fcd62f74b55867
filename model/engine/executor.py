"""The interface of executors: computation of the network with one library on one device."""

# B rows, T target length, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.beams import Stepper
from model.decoding.items import ItemStepper
from model.engine.plans import Plan
from model.engine.protocol import Placement


class EncodedBatch(Protocol):
    """Encoded prompts, which may be decoded any number of times."""

    def stepper(self, *, num_beams: int, max_length: int) -> Stepper:
        """A decode loop of at most `max_length` steps with at most `num_beams` beams per row."""
        ...

    def item_stepper(self, *, num_beams: int, max_length: int) -> ItemStepper:
        """As `stepper`, for a search for items, which needs few logits exactly."""
        ...


class RowStepper(Protocol):
    """A decode loop whose rows begin and end independently of each other."""

    def admit(self, rows: Sequence[int], plans: Sequence[Plan]) -> None:
        """Encode prompts into free rows. If it fails, no row has changed."""
        ...

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Feed the next token of each of these rows: tokens [n] → logits [n, V] in float32.

        If it fails, no row has changed.
        """
        ...

    def release(self, row: int) -> None:
        """Free a row."""
        ...


class Executor(Protocol):
    """Computes the network for batches that may mix domains; independent of tries and searches."""

    @property
    def device(self) -> torch.device:
        """Device of the logits and of the searches."""
        ...

    @property
    def num_slots(self) -> int: ...

    @property
    def is_exact(self) -> bool:
        """Whether weights and products are in float32, see Engine.is_exact."""
        ...

    def computing(self) -> AbstractContextManager[object]:
        """Settings of torch in the calling thread while a batch is encoded, decoded and searched."""
        ...

    def encode(self, plans: Sequence[Plan]) -> EncodedBatch: ...

    def row_stepper(self) -> RowStepper:
        """A new RowStepper. The caller numbers its rows and uses the lowest free ones first."""
        ...

    def place(self, slot: int, placement: Placement) -> None:
        """Fill a free slot with a domain's weights, as Engine.place; running batches are not affected."""
        ...

"""What computes the network for an engine's searches, on one kind of device with one library."""

# B rows, T target length, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.beams import Stepper
from model.engine.plans import Plan
from model.engine.protocol import Placement


class EncodedBatch(Protocol):
    """Prompts that the encoder has read, ready to be decoded as often as one likes."""

    def stepper(self, *, num_beams: int, max_length: int) -> Stepper:
        """A decode loop of at most `max_length` steps with room for `num_beams` beams a row."""
        ...

    def decode(self, target_ids: Tensor) -> Tensor:
        """Teacher forcing: float32 logits [B, T, V] that predict target_ids [B, T]."""
        ...


class RowStepper(Protocol):
    """A decode loop whose rows begin, go on and end independently of each other."""

    def admit(self, rows: Sequence[int], plans: Sequence[Plan]) -> None:
        """Read prompts into free rows; if it fails, the rows are free as before."""
        ...

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Feed one more token of each of these rows: tokens [n] → logits [n, V] in float32.

        If it fails, no row has moved on.
        """
        ...

    def release(self, row: int) -> None:
        """The row is free again."""
        ...


class Executor(Protocol):
    """Computes the network for batches that mix domains; knows nothing of tries and searches."""

    @property
    def device(self) -> torch.device:
        """Where logits come out and searches run."""
        ...

    @property
    def num_slots(self) -> int: ...

    def computing(self) -> AbstractContextManager[object]:
        """What torch is set to in the calling thread while a batch is encoded, decoded and searched."""
        ...

    def encode(self, plans: Sequence[Plan]) -> EncodedBatch: ...

    def row_stepper(self) -> RowStepper:
        """Rows for texts; which ones there are is the caller's to choose, lowest first."""
        ...

    def place(self, slot: int, placement: Placement) -> None:
        """Fill a free slot with a domain's weights, as Engine.place says; batches that run are not disturbed."""
        ...

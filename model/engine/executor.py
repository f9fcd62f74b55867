"""What computes the network for an engine's searches, on one kind of device with one library."""

# B rows, T target length, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.beams import Stepper
from model.engine.protocol import EncoderInput, Placement


class EncodedBatch(Protocol):
    """Prompts that the encoder has read, ready to be decoded as often as one likes."""

    def stepper(self, *, num_beams: int, max_length: int) -> Stepper:
        """A decode loop of at most `max_length` steps with room for `num_beams` beams a row."""
        ...

    def decode(self, target_ids: Tensor) -> Tensor:
        """Teacher forcing: float32 logits [B, T, V] that predict target_ids [B, T]."""
        ...


class Executor(Protocol):
    """Computes the network for batches that mix domains; knows nothing of tries and searches."""

    @property
    def device(self) -> torch.device:
        """Where logits come out and searches run."""
        ...

    @property
    def num_slots(self) -> int: ...

    def encode(self, sources: Sequence[EncoderInput]) -> EncodedBatch: ...

    def place(self, slot: int, placement: Placement) -> None:
        """Fill a free slot with a domain's weights, as Engine.place says; batches that run are not disturbed."""
        ...

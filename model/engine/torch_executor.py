"""The executor for torch, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from model.engine.collate import collate
from model.engine.plans import Plan
from model.engine.products import ProductPrecision, float32_products
from model.engine.protocol import Placement
from model.engine.row_stepper import NetworkRowStepper
from model.engine.stepper import NetworkStepper
from model.network.banks import RowIndex
from model.network.network import Vip5Network
from model.network.projection import pack_projections
from model.network.slots import fits, place_domain, with_layout
from model.network.stacks import Memory


class TorchExecutor:
    """Runs the network operator by operator."""

    def __init__(self, network: Vip5Network, device: torch.device, *, products: ProductPrecision | None = None) -> None:
        """`products` is set for the whole process while this executor computes; None leaves the process's setting."""
        if device.type == "cpu":
            pack_projections(network)
        self._network = network
        self._device = device
        self._products = products

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def num_slots(self) -> int:
        return len(self._network.layouts)

    @property
    def is_exact(self) -> bool:
        return self._network.shared.dtype == torch.float32

    @contextmanager
    def computing(self) -> Iterator[None]:
        with nullcontext() if self._products is None else float32_products(self._products), torch.inference_mode():
            yield

    def encode(self, plans: Sequence[Plan]) -> TorchBatch:
        network = self._network
        inputs = collate(plans, network, self._device)
        return TorchBatch(network, network.memorise(inputs), inputs.rows)

    def row_stepper(self) -> NetworkRowStepper:
        return NetworkRowStepper(self._read, self._network, is_static=self._device.type != "cpu")

    def _read(self, plans: Sequence[Plan]) -> tuple[Vip5Network, Memory]:
        batch = self.encode(plans)
        return batch.network, batch.memory

    def move_to(self, network: Vip5Network) -> None:
        """Encode from now on with other banks over the same backbone.

        Batches and texts that are under way keep the banks that they began with.
        """
        self._network = network

    def place(self, slot: int, placement: Placement) -> None:
        network = self._network
        if not fits(network, slot, placement.layout):
            network = with_layout(network, slot, placement.layout)
        place_domain(network, slot, placement.layout, placement.weights)
        self.move_to(network)


@dataclass(frozen=True)
class TorchBatch:
    """An EncodedBatch of torch."""

    network: Vip5Network
    memory: Memory
    rows: RowIndex

    def stepper(self, *, num_beams: int, max_length: int) -> NetworkStepper:
        return NetworkStepper(self.network, self.memory, self.rows, num_beams=num_beams, max_length=max_length)

    def item_stepper(self, *, num_beams: int, max_length: int) -> NetworkStepper:
        return self.stepper(num_beams=num_beams, max_length=max_length)

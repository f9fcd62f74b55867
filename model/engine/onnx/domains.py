"""What belongs to the domains of a batch, as inputs of the graphs."""

# B rows, D width, R bottleneck

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxruntime import OrtValue
from torch import Tensor

from model.engine.onnx.session import to_value
from model.network.banks import AdapterBank, BankIndex, RMSNormBank, RowIndex, select
from model.network.network import Vip5Network
from model.network.stacks import Branch

Inputs = dict[str, OrtValue]

_KEPT = 256
"""Single domains whose inputs are kept, laid out as the graphs take them; each takes what its adapters take."""


@dataclass(frozen=True)
class DomainInputs:
    """Inputs of the two graphs for the rows of one batch."""

    encoder: Inputs
    step: Inputs


class DomainInputBank:
    """Makes the inputs for any rows; those of a batch of one domain are made once."""

    def __init__(self, network: Vip5Network) -> None:
        self._network = network
        self._made: dict[tuple[int, int], DomainInputs] = {}

    def of(self, rows: RowIndex) -> DomainInputs:
        """Entries [...] where all rows agree, else one for each row, [B, ...]."""
        if not (isinstance(rows.domain, int) and isinstance(rows.adapter, int)):
            return self._make(rows)
        key = rows.domain, rows.adapter
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            made = self._made[key] = self._make(rows)
        return made

    def forget(self, slot: int) -> None:
        """Make what belongs to a slot anew from now on."""
        for key in [key for key in self._made if key[0] == slot]:
            del self._made[key]

    def _make(self, rows: RowIndex) -> DomainInputs:
        network = self._network
        return DomainInputs(
            encoder=_inputs(_encoder_branches(network), "encoder", network.encoder.final_norm, rows),
            step=_inputs(_decoder_branches(network), "decoder", network.decoder.final_norm, rows),
        )


def _encoder_branches(network: Vip5Network) -> Iterator[tuple[str, Branch]]:
    for number, block in enumerate(network.encoder.layers):
        yield f"encoder.{number}.attention", block.attention_branch
        yield f"encoder.{number}.feed_forward", block.feed_forward_branch


def _decoder_branches(network: Vip5Network) -> Iterator[tuple[str, Branch]]:
    for number, block in enumerate(network.decoder.layers):
        yield f"decoder.{number}.attention", block.attention_branch
        yield f"decoder.{number}.cross", block.cross_branch
        yield f"decoder.{number}.feed_forward", block.feed_forward_branch


def _inputs(branches: Iterator[tuple[str, Branch]], stack: str, final_norm: RMSNormBank, rows: RowIndex) -> Inputs:
    tensors = {f"{stack}.final.norm": _norm(final_norm, rows.domain)}
    for name, branch in branches:
        tensors[f"{name}.norm"] = _norm(branch.norm, rows.domain)
        if branch.adapter is not None:
            tensors |= {f"{name}.{part}": tensor for part, tensor in _adapter(branch.adapter, rows.adapter).items()}
    return {name: to_value(tensor) for name, tensor in tensors.items()}


def _norm(bank: RMSNormBank, index: BankIndex) -> Tensor:
    """[D], or [B, 1, D]."""
    weight = select(bank.weight.detach(), index)
    return weight if isinstance(index, int) else weight.unsqueeze(1)


def _adapter(bank: AdapterBank, index: BankIndex) -> dict[str, Tensor]:
    """Weights [D, R] and [R, D] as the products take them, biases [R] and [D]; or with B in front."""
    weights = (bank.down_weight, bank.up_weight)
    down, up = (select(weight.detach(), index).transpose(-1, -2).contiguous() for weight in weights)
    down_bias, up_bias = (select(bias.detach(), index) for bias in (bank.down_bias, bank.up_bias))
    if not isinstance(index, int):
        down_bias, up_bias = down_bias.unsqueeze(1), up_bias.unsqueeze(1)
    return {"down": down, "up": up, "down_bias": down_bias, "up_bias": up_bias}

"""Decode steps of the step model for text sessions: rows begin and end independently of each other."""

# L layers, n rows of a step, H heads, t longest text of the rows so far, E head width, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.engine.collate import row_index
from model.engine.onnx.domains import DomainInputBank, Inputs
from model.engine.onnx.session import Session, to_tensor, to_value
from model.engine.plans import Plan
from model.engine.text_rows import TextRows
from model.network.network import Vip5Network
from model.network.row_cache import RowSelection
from model.network.stacks import Memory


@dataclass(frozen=True)
class ReadPrompts:
    """Encoded prompts, with the network and session that continue them and all texts admitted before."""

    network: Vip5Network
    session: Session
    domains: DomainInputBank
    memory: Memory


Read = Callable[[Sequence[Plan]], ReadPrompts]


class OnnxRowStepper:
    """A RowStepper over ONNX Runtime."""

    def __init__(self, read: Read, network: Vip5Network) -> None:
        self._read = read
        self._rows: TextRows[Inputs] = TextRows(network, self._inputs, is_static=False)
        self._prompts: ReadPrompts | None = None

    def admit(self, rows: Sequence[int], plans: Sequence[Plan]) -> None:
        """Encode prompts into rows, which must be free."""
        prompts = self._read(plans)
        self._rows.admit(rows, plans, prompts.memory)
        self._prompts = prompts

    def release(self, row: int) -> None:
        self._rows.release(row)

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Feed tokens [n] to rows [n], all of them admitted → logits [n, V] in float32."""
        assert self._prompts is not None, "admit rows before a step"
        selected, cache = self._rows.select(rows), self._rows.cache
        past, lengths = cache.past(selected.selection)
        x = functional.embedding(tokens, self._prompts.network.shared).unsqueeze(1)
        outputs = self._prompts.session.run(
            {
                **selected.shared,
                **{f"past_{kind}.{layer}": to_value(past[layer, half]) for layer, half, kind in self._places()},
                "x": to_value(x),
                "bias": to_value(self._bias(lengths, past.shape[4])),
                "origin": to_value(torch.arange(len(rows), device=tokens.device)),
            }
        )
        written = cache.at_step(selected.selection)
        for layer in range(past.shape[0]):
            k, v = (to_tensor(outputs[f"new_{kind}.{layer}"])[:, :, -1:].transpose(1, 2) for kind in ("key", "value"))
            written.append(layer, k, v)
        cache.advance(rows)
        return to_tensor(outputs["logits"])[:, 0]

    def _bias(self, lengths: Tensor, longest: int) -> Tensor:
        """Position bias [n, H, 1, t + 1]: the new token is last, positions beyond a row's length are masked."""
        bias = self._rows.cache.biases(lengths, longest)
        beyond = torch.arange(longest, device=lengths.device) >= lengths.unsqueeze(1)
        own = self._rows.cache.biases(torch.zeros_like(lengths), 1)
        return torch.cat([bias.masked_fill(beyond[:, None, None, :], torch.finfo(bias.dtype).min), own], dim=-1)

    def _inputs(self, selection: RowSelection, plans: Sequence[Plan]) -> Inputs:
        """Inputs that are the same in each step: the domains' weights and the encoder's outputs."""
        assert self._prompts is not None, "admit rows before a step"
        network, memory = self._prompts.network, selection.memory
        num_rows, _, width, _ = memory.keys[0].shape
        is_token = torch.ones(num_rows, width, dtype=torch.int32, device=network.shared.device)
        if memory.mask is not None:
            is_token = (memory.mask == 0).int().view(num_rows, width)
        index = row_index(plans, network, network.shared.device)
        inputs = {**self._prompts.domains.of(index).step, "is_token": to_value(is_token)}
        for layer, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
            inputs |= {f"key.{layer}": to_value(keys), f"value.{layer}": to_value(values)}
        return inputs

    def _places(self) -> list[tuple[int, int, str]]:
        assert self._prompts is not None
        layers = range(self._prompts.network.config.num_decoder_layers)
        return [(layer, half, kind) for layer in layers for half, kind in enumerate(("key", "value"))]

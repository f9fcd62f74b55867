"""Generated texts on the step model: rows that begin, go on and end independently of each other."""

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
from model.engine.protocol import EncoderInput
from model.network.network import Vip5Network
from model.network.row_cache import RowCache, RowSelection
from model.network.stacks import Memory


@dataclass(frozen=True)
class ReadPrompts:
    """Prompts that the encoder has read, and what goes on with them and with all that came before."""

    network: Vip5Network
    session: Session
    domains: DomainInputBank
    memory: Memory


Read = Callable[[Sequence[EncoderInput]], ReadPrompts]


@dataclass(frozen=True)
class _Selected:
    """The rows of a step and what is the same in each of their steps."""

    selection: RowSelection
    inputs: Inputs


class OnnxRowStepper:
    """Decodes rows at different positions, one token of each at a time."""

    def __init__(self, read: Read, network: Vip5Network) -> None:
        self._read = read
        self._cache = RowCache(network, is_static=False)
        self._prompts: ReadPrompts | None = None
        self._sources: dict[int, EncoderInput] = {}
        self._selected: _Selected | None = None

    def admit(self, rows: Sequence[int], sources: Sequence[EncoderInput]) -> None:
        """Read prompts; the rows must be free."""
        prompts = self._read(sources)
        self._cache.occupy(rows, prompts.memory, [source.prompt.num_tokens for source in sources])
        self._prompts = prompts
        self._sources.update(zip(rows, sources, strict=True))
        self._selected = None

    def release(self, row: int) -> None:
        del self._sources[row]
        self._cache.vacate(row)
        if not self._sources:
            self._cache.release()
            self._selected = None

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Feed tokens [n] to the rows [n], all of them admitted → logits [n, V] in float32."""
        assert self._prompts is not None, "rows are admitted before they step"
        if self._cache.reserve_step():
            self._selected = None
        selected = self._select(rows, self._prompts)
        past, lengths = self._cache.past(selected.selection)
        x = functional.embedding(tokens, self._prompts.network.shared).unsqueeze(1)
        outputs = self._prompts.session.run(
            {
                **selected.inputs,
                **{f"past_{kind}.{layer}": to_value(past[layer, half]) for layer, half, kind in self._places()},
                "x": to_value(x),
                "bias": to_value(self._bias(lengths, past.shape[4])),
                "origin": to_value(torch.arange(len(rows), device=tokens.device)),
            }
        )
        written = self._cache.at_step(selected.selection)
        for layer in range(past.shape[0]):
            k, v = (to_tensor(outputs[f"new_{kind}.{layer}"])[:, :, -1:].transpose(1, 2) for kind in ("key", "value"))
            written.append(layer, k, v)
        self._cache.advance(rows)
        return to_tensor(outputs["logits"])[:, 0]

    def _bias(self, lengths: Tensor, longest: int) -> Tensor:
        """Position bias [n, H, 1, t + 1]: a row's new token comes last, and what it does not hold is masked."""
        bias = self._cache.biases(lengths, longest)
        beyond = torch.arange(longest, device=lengths.device) >= lengths.unsqueeze(1)
        own = self._cache.biases(torch.zeros_like(lengths), 1)
        return torch.cat([bias.masked_fill(beyond[:, None, None, :], torch.finfo(bias.dtype).min), own], dim=-1)

    def _select(self, rows: Sequence[int], prompts: ReadPrompts) -> _Selected:
        if self._selected is not None and self._selected.selection.rows == tuple(rows):
            return self._selected
        selection = self._cache.select(rows)
        memory, device = selection.memory, prompts.network.shared.device
        index = row_index([self._sources[row] for row in rows], prompts.network, device)
        num_rows, _, width, _ = memory.keys[0].shape
        is_token = torch.ones(num_rows, width, dtype=torch.int32, device=device)
        if memory.mask is not None:
            is_token = (memory.mask == 0).int().view(num_rows, width)
        inputs = {**prompts.domains.of(index).step, "is_token": to_value(is_token)}
        for layer, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
            inputs |= {f"key.{layer}": to_value(keys), f"value.{layer}": to_value(values)}
        self._selected = _Selected(selection, inputs)
        return self._selected

    def _places(self) -> list[tuple[int, int, str]]:
        assert self._prompts is not None
        layers = range(self._prompts.network.config.num_decoder_layers)
        return [(layer, half, kind) for layer in layers for half, kind in enumerate(("key", "value"))]

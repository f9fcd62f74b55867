"""The transformers baseline: T5 on the device, and `generate` constrained by a trie of dicts.

Gets prepared token ids without images and adapters, so it does less work than ours.
"""

# B rows, S source length

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from benchmarks.gpu_workload import Workload
from benchmarks.transformers_baseline import build_trie, t5_config
from model.engine.plans import RankingPlan

_EOS = 1
_MAX_NEW_TOKENS = 8


class TransformersBaseline:
    """transformers' beam search."""

    def __init__(
        self, workload: Workload, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> None:
        model = T5ForConditionalGeneration(t5_config(workload.size.backbone))
        own = {name: weights[name] for name in model.state_dict() if name in weights}
        model.load_state_dict(own, strict=False)
        model.train(mode=False)
        self._model = cast("Any", model).to(
            device=device, dtype=dtype
        )  # mypy cannot resolve the overloads of `generate`
        self._trie = build_trie(workload.identifiers)
        self._device = device

    @torch.inference_mode()
    def answer(self, plans: Sequence[RankingPlan]) -> list[list[tuple[int, ...]]]:
        """Identifiers of each plan's beams, best first; all plans have the same number of beams."""
        num_beams = plans[0].num_beams
        prompts = [torch.from_numpy(plan.prompt.input_ids) for plan in plans]
        ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True).to(self._device)
        found = self._model.generate(
            input_ids=ids,
            attention_mask=(ids != 0).long(),
            num_beams=num_beams,
            num_return_sequences=num_beams,
            max_new_tokens=_MAX_NEW_TOKENS,
            early_stopping=False,
            length_penalty=0.0,
            do_sample=False,
            prefix_allowed_tokens_fn=self._allowed,
        )
        rows = [tuple(token for token in row if token > _EOS) for row in found.tolist()]
        return [rows[start : start + num_beams] for start in range(0, len(rows), num_beams)]

    def _allowed(self, _row: int, prefix: Tensor) -> list[int]:
        node = self._trie
        for token in prefix.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [_EOS]

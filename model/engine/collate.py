"""Prompts of a batch as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.engine.plans import Plan
from model.network.banks import BankIndex, RowIndex
from model.network.network import EncoderBatch, Vip5Network
from model.prompts.prompt import Prompt


def collate(plans: Sequence[Plan], network: Vip5Network, device: torch.device) -> EncoderBatch:
    """Pad prompts to the longest and images to the most; features narrower than the bank's are padded with zeros."""
    prompts = [prompt for plan in plans for prompt in plan.prompts]
    lengths = {prompt.num_tokens for prompt in prompts}
    longest = max(lengths)
    return EncoderBatch(
        input_ids=_padded([prompt.input_ids for prompt in prompts], longest, device),
        whole_word_ids=_padded([prompt.whole_word_ids for prompt in prompts], longest, device),
        category_ids=_padded([prompt.category_ids for prompt in prompts], longest, device),
        features=_features(plans, network).to(device),
        rows=row_index(plans, network, device),
        is_padded=len(lengths) > 1,
    )


def row_index(plans: Sequence[Plan], network: Vip5Network, device: torch.device) -> RowIndex:
    """Where each prompt's weights are: one number where all agree, which needs no gathering."""
    by_prompt = [plan for plan in plans for _ in plan.prompts]
    return RowIndex(
        domain=_bank_index([plan.slot for plan in by_prompt], device),
        adapter=_bank_index([network.adapter_row(plan.slot, plan.task) for plan in by_prompt], device),
    )


def _bank_index(entries: list[int], device: torch.device) -> BankIndex:
    if len(set(entries)) == 1:
        return entries[0]
    return torch.tensor(entries, device=device)


def _padded(rows: Sequence[NDArray[np.int64]], longest: int, device: torch.device) -> torch.Tensor:
    padded = np.zeros((len(rows), longest), dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded).to(device)


def num_shown(prompt: Prompt, slot: int, network: Vip5Network) -> int:
    """Images whose tokens stand in the prompt, the last perhaps in part."""
    visual_tokens = network.layouts[slot].visual_tokens
    return -(-int(prompt.category_ids.sum()) // visual_tokens) if visual_tokens else 0


def _features(plans: Sequence[Plan], network: Vip5Network) -> torch.Tensor:
    # A row for every image in the prompts, so that those without features read zeros.
    given = [features for plan in plans for features in plan.features_by_prompt]
    shown = [num_shown(prompt, plan.slot, network) for plan in plans for prompt in plan.prompts]
    padded = np.zeros((len(given), max(*map(len, given), *shown), network.feature_dim), dtype=np.float32)
    for line, features in zip(padded, given, strict=True):
        if features.size:
            line[: len(features), : features.shape[1]] = features
    return torch.from_numpy(padded).to(network.shared.dtype)

"""Prompts of a batch as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.engine.protocol import EncoderInput
from model.network.banks import BankIndex, RowIndex
from model.network.network import EncoderBatch, Vip5Network


def collate(sources: Sequence[EncoderInput], network: Vip5Network, device: torch.device) -> EncoderBatch:
    """Pad prompts to the longest and images to the most; features narrower than the bank's are padded with zeros."""
    lengths = {source.prompt.num_tokens for source in sources}
    prompts = [source.prompt for source in sources]
    longest = max(lengths)
    return EncoderBatch(
        input_ids=_padded([prompt.input_ids for prompt in prompts], longest, device),
        whole_word_ids=_padded([prompt.whole_word_ids for prompt in prompts], longest, device),
        category_ids=_padded([prompt.category_ids for prompt in prompts], longest, device),
        features=_features(sources, network).to(device),
        rows=row_index(sources, network, device),
        is_padded=len(lengths) > 1,
    )


def row_index(sources: Sequence[EncoderInput], network: Vip5Network, device: torch.device) -> RowIndex:
    """Where each row's weights are: one number where all rows agree, which spares the gathering."""
    return RowIndex(
        domain=_bank_index([source.slot for source in sources], device),
        adapter=_bank_index([network.adapter_row(source.slot, source.task) for source in sources], device),
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


def num_shown(source: EncoderInput, network: Vip5Network) -> int:
    """Images whose tokens stand in the prompt, the last perhaps in part."""
    visual_tokens = network.layouts[source.slot].visual_tokens
    return -(-int(source.prompt.category_ids.sum()) // visual_tokens) if visual_tokens else 0


def _features(sources: Sequence[EncoderInput], network: Vip5Network) -> torch.Tensor:
    # A row for every image in the prompts, so that those without features read zeros.
    most = max(max(len(source.features), num_shown(source, network)) for source in sources)
    features = np.zeros((len(sources), most, network.feature_dim), dtype=np.float32)
    for line, source in zip(features, sources, strict=True):
        if source.features.size:
            line[: len(source.features), : source.features.shape[1]] = source.features
    return torch.from_numpy(features).to(network.shared.dtype)

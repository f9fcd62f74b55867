"""Padding of a batch's prompts and image features."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.engine.plans import Plan
from model.network.banks import RowIndex, bank_index
from model.network.network import EncoderBatch, Vip5Network
from model.prompts.padding import pad_features, pad_prompts
from model.prompts.prompt import Prompt


def collate(plans: Sequence[Plan], network: Vip5Network, device: torch.device) -> EncoderBatch:
    """Pad prompts to the longest, images to the largest number, and features with zeros to the width of the banks."""
    prompts = [prompt for plan in plans for prompt in plan.prompts]
    return EncoderBatch(
        **{name: torch.from_numpy(ids).to(device) for name, ids in pad_prompts(prompts).items()},
        features=_features(plans, network).to(device),
        rows=row_index(plans, network, device),
        is_padded=len({prompt.num_tokens for prompt in prompts}) > 1,
    )


def row_index(plans: Sequence[Plan], network: Vip5Network, device: torch.device) -> RowIndex:
    """Rows of each prompt's weights in the banks; a single number if all prompts share them, which saves gathering."""
    by_prompt = [plan for plan in plans for _ in plan.prompts]
    return RowIndex(
        domain=bank_index([plan.slot for plan in by_prompt], device),
        adapter=bank_index([network.adapter_row(plan.slot, plan.task) for plan in by_prompt], device),
    )


def num_images_shown(prompt: Prompt, slot: int, network: Vip5Network) -> int:
    """Number of images with at least one token in the prompt."""
    return prompt.num_images_shown(network.layouts[slot].visual_tokens)


def _features(plans: Sequence[Plan], network: Vip5Network) -> torch.Tensor:
    # One row for each image in the prompts, so that images without features read zeros.
    given = [features for plan in plans for features in plan.features_by_prompt]
    shown = [num_images_shown(prompt, plan.slot, network) for plan in plans for prompt in plan.prompts]
    most = max(*map(len, given), *shown)
    return torch.from_numpy(pad_features(given, most, network.feature_dim)).to(network.shared.dtype)

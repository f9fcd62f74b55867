"""Merging a LoRA that PEFT saved into the T5 that it was trained on: W + scale · B A for each product that it changes.

The result is the model that PEFT's `merge_and_unload` gives. Forms that change more than products are refused by name.
"""

# R rank, I inputs, O outputs

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from model.bundle.documents import read_json_object
from model.bundle.tensors import check_finite, named, read_tensors
from model.errors import BundleError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_PLAIN: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
}
"""Values of the configuration with which a LoRA is nothing but products; None, or no key at all, always is."""
_REMEDY = "merge it with merge_and_unload() of PEFT, and import that model"


def with_lora(tensors: Mapping[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a T5, under its own names, with the LoRA in a folder merged into them.

    Raises BundleError for a form of PEFT other than plain LoRA, and for products that the T5 does not have.
    """
    scale = _scale(read_json_object(folder / CONFIG), folder.name)
    found = read_tensors(folder / WEIGHTS)
    check_finite(found, folder.name)
    others = [name for name in found if not name.startswith(_PREFIX) or not name.endswith((_A, _B))]
    if others:
        raise BundleError(f"{folder.name} has {named(others)}, which is no product of a LoRA; {_REMEDY}")
    modules = sorted({name.removesuffix(_A).removesuffix(_B) for name in found})
    if not modules:
        raise BundleError(f"{folder.name} has no weights; save the adapter again with save_pretrained of PEFT")
    merged = dict(tensors)
    for module in modules:
        down, up = found.get(module + _A), found.get(module + _B)  # [R, I], [O, R]
        name = f"{module.removeprefix(_PREFIX)}.weight"
        weight = merged.get(name)
        if weight is None or down is None or up is None:
            lacks = "the T5 has no" if weight is None else f"{folder.name} has only one of the two factors of"
            raise BundleError(f"{lacks} {name}; give the T5 that the LoRA was trained on, and all of its weights")
        if down.dim() != 2 or up.dim() != 2 or (up.shape[0], down.shape[1]) != weight.shape or len(down) != up.shape[1]:
            shapes = f"{list(up.shape)} and {list(down.shape)}"
            raise BundleError(
                f"{folder.name}: the factors of {name} have the shapes {shapes}, whose product is not"
                f" {list(weight.shape)}, the T5's; give the T5 that the LoRA was trained on"
            )
        merged[name] = weight + (scale * (up.float() @ down.float())).to(weight.dtype)
    return merged


def _scale(config: Mapping[str, object], where: str) -> float:
    """What products are multiplied with. Raises BundleError unless the configuration is that of a plain LoRA."""
    if config.get("peft_type") != "LORA":
        raise BundleError(
            f"{where}/{CONFIG} has peft_type {config.get('peft_type')!r}; it must be LORA, else {_REMEDY}"
        )
    for key, plain in _PLAIN.items():
        if key in config and config[key] not in plain:
            raise BundleError(f"{where}/{CONFIG} has {key} {config[key]!r}, which is no plain LoRA; {_REMEDY}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise BundleError(
            f"{where}/{CONFIG} has r {rank!r} and lora_alpha {alpha!r}; both must be numbers, r at least 1"
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

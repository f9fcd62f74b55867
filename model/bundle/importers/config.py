"""config.json of a foreign checkpoint, with the names of Hugging Face's T5 and of VIP5's trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_args

import torch

from model.bundle.documents import check_backbone_config, read_json_object
from model.bundle.layout import ImageEncoder
from model.bundle.shapes import CATEGORY, SHARED, WHOLE_WORD
from model.errors import BundleError
from model.network.config import TASKS, BackboneConfig, DomainLayout, FeedForward

T = TypeVar("T", int, str, bool)

_TYPE_NAMES = {int: "an integer", str: "a string", bool: "true or false"}


class ConfigFile:
    """Typed access to the values of a config.json; raises BundleError naming the key."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._values = read_json_object(path)

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self._values.get(key, default)
        if value is None:
            raise BundleError(f"{self.name} has no {key}; it must be {_TYPE_NAMES[kind]}")
        if type(value) is not kind:
            raise BundleError(f"{self.name}: {key} is {value!r}; it must be {_TYPE_NAMES[kind]}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BundleError(f"{self.name}: {key} is {value!r}; it must be a number")
        return float(value)

    def section(self, key: str) -> Mapping[str, object]:
        """A nested object, or an empty one."""
        value = self._values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise BundleError(f"{self.name}: {key} is {value!r}; it must be an object")
        return value


def backbone_config(config: ConfigFile, tensors: Mapping[str, torch.Tensor]) -> BackboneConfig:
    """A T5's dimensions. The vocabulary's size is taken from the shared embedding, because trainers resize it."""
    feed_forward: FeedForward
    match config.get("feed_forward_proj", str, "relu"):
        case "relu" | "gated-gelu" as known:
            feed_forward = known
        case other:
            raise BundleError(
                f"{config.name}: feed_forward_proj is {other!r}; it must be one of {', '.join(get_args(FeedForward))}"
            )
    num_layers = config.get("num_layers", int)
    built = BackboneConfig(
        vocab_size=len(tensors[SHARED]),
        d_model=config.get("d_model", int),
        d_kv=config.get("d_kv", int),
        d_ff=config.get("d_ff", int),
        num_heads=config.get("num_heads", int),
        num_layers=num_layers,
        num_decoder_layers=config.get("num_decoder_layers", int, num_layers),
        feed_forward_proj=feed_forward,
        tie_word_embeddings=ties_head(config),
        layer_norm_epsilon=config.number("layer_norm_epsilon", 1e-6),
        relative_attention_num_buckets=config.get("relative_attention_num_buckets", int, 32),
        relative_attention_max_distance=config.get("relative_attention_max_distance", int, 128),
        dropout_rate=config.number("dropout_rate", 0.1),
    )
    check_backbone_config(built, config.name)
    return built


def ties_head(config: ConfigFile) -> bool:
    """Whether the head is the shared embedding."""
    return config.get("tie_word_embeddings", bool, default=True)


def vip5_layout(config: ConfigFile, tensors: Mapping[str, torch.Tensor]) -> DomainLayout:
    """What VIP5's trainer added to the T5; raises BundleError for an option that this network does not support."""
    _check_adapters(config)
    visual_tokens = config.get("n_vis_tokens", int)
    has_adapters = config.get("use_adapter", bool)
    reduction_factor = config.get("reduction_factor", int) if has_adapters else 0
    d_model = config.get("d_model", int)
    if has_adapters and not 0 < reduction_factor <= d_model:
        raise BundleError(
            f"{config.name}: reduction_factor is {reduction_factor}; it must be between 1 and d_model ({d_model})"
        )
    return DomainLayout(
        bottleneck=d_model // reduction_factor if has_adapters else 0,
        cross_attention_adapter=has_adapters and config.get("add_adapter_cross_attn", bool),
        one_adapter_for_all_tasks=not has_adapters or config.get("use_single_adapter", bool),
        visual_tokens=visual_tokens,
        feature_dim=config.get("feat_dim", int) if visual_tokens else 0,
        visual_norm=visual_tokens > 0 and config.get("use_vis_layer_norm", bool),
        whole_word_rows=table_rows(tensors, WHOLE_WORD) if config.get("whole_word_embed", bool) else 0,
        category_rows=table_rows(tensors, CATEGORY) if config.get("category_embed", bool) else 0,
    )


def vip5_encoder(config: ConfigFile, layout: DomainLayout) -> ImageEncoder | None:
    if not layout.visual_tokens:
        return None
    return ImageEncoder(name=config.get("image_feature_type", str), dim=layout.feature_dim)


def table_rows(tensors: Mapping[str, torch.Tensor], name: str) -> int:
    if name not in tensors:
        raise BundleError(
            f"the checkpoint has no {name}, which its configuration requires; check that both belong together"
        )
    return len(tensors[name])


def _check_adapters(config: ConfigFile) -> None:
    adapter = config.section("adapter")
    tasks = adapter.get("tasks", list(TASKS))
    if tasks != list(TASKS):
        raise BundleError(f"{config.name}: adapter.tasks is {tasks!r}; it must be {list(TASKS)!r}")
    if adapter.get("non_linearity", "gelu_new") != "gelu_new":
        raise BundleError(
            f"{config.name}: adapter.non_linearity is {adapter['non_linearity']!r}; it must be 'gelu_new'"
        )
    for key in ("add_layer_norm_before_adapter", "add_layer_norm_after_adapter"):
        if adapter.get(key):
            raise BundleError(
                f"{config.name}: adapter.{key} is true; adapters with their own layer norms are not supported"
            )
    if config.get("use_lm_head_adapter", bool, default=False):
        raise BundleError(f"{config.name}: use_lm_head_adapter is true; adapters of the head are not supported")

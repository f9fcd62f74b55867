"""Names and shapes of the tensors of a backbone and a domain, as in VIP5's checkpoints. Knows no files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from model.network.config import TASKS, BackboneConfig, DomainLayout

Shape: TypeAlias = tuple[int, ...]
Stack = Literal["encoder", "decoder"]

WHOLE_WORD = "encoder.whole_word_embeddings.weight"
CATEGORY = "encoder.category_embeddings.weight"
VISUAL = "encoder.visual_embedding.feat_embedding"
SHARED = "shared.weight"
HEAD = "lm_head.weight"

_STACKS: tuple[Stack, ...] = ("encoder", "decoder")


def expected_shapes(config: BackboneConfig) -> dict[str, Shape]:
    """The frozen tensors of a backbone: those of a T5 except its layer norms."""
    shapes: dict[str, Shape] = {SHARED: (config.vocab_size, config.d_model)}
    for stack in _STACKS:
        for block in range(_num_blocks(config, stack)):
            shapes.update(_block_shapes(config, stack, block))
    if not config.tie_word_embeddings:
        shapes[HEAD] = (config.vocab_size, config.d_model)
    return shapes


def expected_norm_shapes(config: BackboneConfig) -> dict[str, Shape]:
    """The layer norms, which every domain has, and also a backbone that was imported from a T5."""
    width = (config.d_model,)
    shapes: dict[str, Shape] = {}
    for stack in _STACKS:
        for block in range(_num_blocks(config, stack)):
            for layer in range(_num_layers(stack)):
                shapes[f"{stack}.block.{block}.layer.{layer}.layer_norm.weight"] = width
        shapes[f"{stack}.final_layer_norm.weight"] = width
    return shapes


def expected_domain_shapes(config: BackboneConfig, layout: DomainLayout) -> dict[str, Shape]:
    """The tensors of a domain: layer norms, adapters, visual mapper and embedding tables.

    A single adapter for all tasks has the name of the first task.
    """
    shapes = expected_norm_shapes(config)
    if layout.bottleneck:
        tasks = TASKS[: layout.num_adapters]
        for place in adapter_places(config, layout):
            for task in tasks:
                shapes.update(_adapter_shapes(f"{place}.adapters.{task}", config.d_model, layout.bottleneck))
    if layout.visual_tokens:
        shapes.update(_visual_shapes(config, layout))
    if layout.whole_word_rows:
        shapes[WHOLE_WORD] = (layout.whole_word_rows, config.d_model)
    if layout.category_rows:
        shapes[CATEGORY] = (layout.category_rows, config.d_model)
    return shapes


def adapter_places(config: BackboneConfig, layout: DomainLayout) -> Iterator[str]:
    """Prefixes of the adapters' names, such as `encoder.block.0.layer.0.attn_adapter`."""
    for stack in _STACKS:
        last = _num_layers(stack) - 1
        for block in range(_num_blocks(config, stack)):
            prefix = f"{stack}.block.{block}.layer"
            yield f"{prefix}.0.attn_adapter"
            if stack == "decoder" and layout.cross_attention_adapter:
                yield f"{prefix}.1.enc_attn_adapter"
            yield f"{prefix}.{last}.ff_adapter"


def _num_blocks(config: BackboneConfig, stack: Stack) -> int:
    return config.num_layers if stack == "encoder" else config.num_decoder_layers


def _num_layers(stack: Stack) -> int:
    """Sub-layers of a block; the decoder has cross-attention between self-attention and feed-forward."""
    return 2 if stack == "encoder" else 3


def _block_shapes(config: BackboneConfig, stack: Stack, block: int) -> dict[str, Shape]:
    prefix = f"{stack}.block.{block}.layer"
    shapes = _attention_shapes(config, f"{prefix}.0.SelfAttention")
    if block == 0:
        buckets = (config.relative_attention_num_buckets, config.num_heads)
        shapes[f"{prefix}.0.SelfAttention.relative_attention_bias.weight"] = buckets
    if stack == "decoder":
        shapes.update(_attention_shapes(config, f"{prefix}.1.EncDecAttention"))
    feed_forward = f"{prefix}.{_num_layers(stack) - 1}.DenseReluDense"
    for name in ("wi",) if config.feed_forward_proj == "relu" else ("wi_0", "wi_1"):
        shapes[f"{feed_forward}.{name}.weight"] = (config.d_ff, config.d_model)
    shapes[f"{feed_forward}.wo.weight"] = (config.d_model, config.d_ff)
    return shapes


def _attention_shapes(config: BackboneConfig, prefix: str) -> dict[str, Shape]:
    inward, outward = (config.inner_dim, config.d_model), (config.d_model, config.inner_dim)
    return {f"{prefix}.{name}.weight": outward if name == "o" else inward for name in "qkvo"}


def _adapter_shapes(prefix: str, width: int, bottleneck: int) -> dict[str, Shape]:
    return {
        f"{prefix}.down_sampler.weight": (bottleneck, width),
        f"{prefix}.down_sampler.bias": (bottleneck,),
        f"{prefix}.up_sampler.weight": (width, bottleneck),
        f"{prefix}.up_sampler.bias": (width,),
    }


def _visual_shapes(config: BackboneConfig, layout: DomainLayout) -> dict[str, Shape]:
    out = config.d_model * layout.visual_tokens
    hidden = out // 2
    shapes: dict[str, Shape] = {
        f"{VISUAL}.0.model.0.weight": (hidden, layout.feature_dim),
        f"{VISUAL}.0.model.0.bias": (hidden,),
        f"{VISUAL}.0.model.2.weight": (out, hidden),
        f"{VISUAL}.0.model.2.bias": (out,),
    }
    if layout.visual_norm:
        shapes[f"{VISUAL}.1.weight"] = (out,)
    return shapes

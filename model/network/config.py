"""Dimensions of a backbone, and of a domain's additions to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Task = Literal["sequential", "direct", "explanation"]
TASKS: tuple[Task, ...] = ("sequential", "direct", "explanation")

FeedForward = Literal["relu", "gated-gelu"]


@dataclass(frozen=True)
class BackboneConfig:
    """Dimensions of a T5, under Hugging Face's names.

    `num_layers` counts encoder blocks. A tied head uses the shared embedding and scales its input by d_model^-0.5; an
    untied one has separate weights and no scaling.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    num_decoder_layers: int
    feed_forward_proj: FeedForward = "relu"
    tie_word_embeddings: bool = True
    layer_norm_epsilon: float = 1e-6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1

    @property
    def inner_dim(self) -> int:
        return self.num_heads * self.d_kv


@dataclass(frozen=True)
class DomainLayout:
    """What a domain adds to the backbone: sizes of its adapters, visual mapper and embedding tables.

    `bottleneck` is d_model // reduction_factor, 0 without adapters. `visual_tokens` is the number of tokens per image,
    0 for text-only prompts. Table sizes are numbers of rows, 0 for a table that the model does not have.
    """

    bottleneck: int
    cross_attention_adapter: bool
    one_adapter_for_all_tasks: bool
    visual_tokens: int
    feature_dim: int
    visual_norm: bool
    whole_word_rows: int
    category_rows: int

    def adapter_of(self, task: Task) -> int:
        """Index of a task's adapter among the domain's adapters."""
        return 0 if self.one_adapter_for_all_tasks else TASKS.index(task)

    @property
    def adapter_tasks(self) -> tuple[Task, ...]:
        """Tasks whose adapters are stored; a single adapter for all tasks is stored as the first task's."""
        return TASKS[:1] if self.one_adapter_for_all_tasks else TASKS

    @property
    def num_adapters(self) -> int:
        return len(self.adapter_tasks)


def capacity_of(layouts: Sequence[DomainLayout]) -> DomainLayout:
    """The smallest layout with room for each of the given ones."""
    return DomainLayout(
        bottleneck=max(layout.bottleneck for layout in layouts),
        cross_attention_adapter=any(layout.cross_attention_adapter for layout in layouts),
        one_adapter_for_all_tasks=all(layout.one_adapter_for_all_tasks for layout in layouts),
        visual_tokens=max(layout.visual_tokens for layout in layouts),
        feature_dim=max(layout.feature_dim for layout in layouts),
        visual_norm=any(layout.visual_norm for layout in layouts),
        whole_word_rows=max(layout.whole_word_rows for layout in layouts),
        category_rows=max(layout.category_rows for layout in layouts),
    )

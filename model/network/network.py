"""The whole network, for training and serving: embedding of multimodal prompts, encoder, decoder and head."""

# B rows, S source length, T target length, K beams, I images, F feature width, D width, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.attention import padding_mask
from model.network.banks import BankIndex, RowIndex, entries
from model.network.beam_tree import BeamTree, TreePlan
from model.network.cache import KeyValueCache, StepCache
from model.network.config import BackboneConfig, DomainLayout, Task, capacity_of
from model.network.projection import Projection
from model.network.stacks import BankSizes, Decoder, Encoder, Memory
from model.network.visual import VisualMapperBank

PAD_ID = 0
START_ID = 0
EOS_ID = 1

NO_ADDITIONS = DomainLayout(
    bottleneck=0,
    cross_attention_adapter=False,
    one_adapter_for_all_tasks=True,
    visual_tokens=0,
    feature_dim=0,
    visual_norm=False,
    whole_word_rows=0,
    category_rows=0,
)
"""The layout of a plain T5."""


@dataclass(frozen=True)
class EncoderBatch:
    """Prompts of B rows, padded at the end with id 0."""

    input_ids: Tensor  # [B, S]
    whole_word_ids: Tensor  # [B, S]
    category_ids: Tensor  # [B, S]
    features: Tensor  # [B, I, F], zero rows where a prompt has fewer images
    rows: RowIndex
    is_padded: bool = True  # False if no row has padding, which saves the mask


class Vip5Network(nn.Module):
    """T5 with the additions of any number of domains; each row of a batch uses those of its own domain."""

    def __init__(
        self, config: BackboneConfig, layouts: Sequence[DomainLayout], *, room_for: DomainLayout = NO_ADDITIONS
    ) -> None:
        """Create banks with a slot for each layout, as large as the largest of the layouts and `room_for`."""
        super().__init__()
        self.config = config
        self.layouts = tuple(layouts) or (NO_ADDITIONS,)
        self.capacity = capacity_of([*self.layouts, room_for])
        sizes = BankSizes(
            num_domains=len(self.layouts),
            num_adapters=len(self.layouts) * self.adapters_per_domain,
            bottleneck=self.capacity.bottleneck,
            has_cross_adapter=self.capacity.cross_attention_adapter,
        )
        self.shared = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.head = Projection(
            self.shared if config.tie_word_embeddings else nn.Parameter(torch.empty_like(self.shared))
        )
        self.whole_word = self._tables(self.capacity.whole_word_rows)
        self.category = self._tables(self.capacity.category_rows)
        self.visual: VisualMapperBank | None = None
        if self.capacity.visual_tokens:
            self.visual = VisualMapperBank(self.layouts, self.capacity, config.d_model, config.layer_norm_epsilon)
        self.encoder = Encoder(config, sizes)
        self.decoder = Decoder(config, sizes)

    @property
    def adapters_per_domain(self) -> int:
        return self.capacity.num_adapters

    @property
    def feature_dim(self) -> int:
        """Width F to which image features are padded; 0 if no domain has images."""
        return 0 if self.visual is None else self.visual.feature_dim

    def adapter_row(self, slot: int, task: Task) -> int:
        """Index of a domain's adapter for a task in the adapter banks."""
        return slot * self.adapters_per_domain + self.layouts[slot].adapter_of(task)

    def set_layout(self, slot: int, layout: DomainLayout) -> None:
        """Set the layout of a slot, without changing its weights."""
        self.layouts = (*self.layouts[:slot], layout, *self.layouts[slot + 1 :])
        if self.visual is not None:
            self.visual.set_layout(slot, layout)

    def embed(self, batch: EncoderBatch) -> Tensor:
        """Token and image embeddings, plus whole-word and category embeddings: [B, S, D]."""
        x = functional.embedding(batch.input_ids, self.shared)
        domain = batch.rows.domain
        if self.visual is not None and batch.features.shape[1]:
            mapped = self.visual(batch.features, domain)
            x = self.visual.place(x, batch.category_ids, mapped, domain)
        if self.whole_word is not None:
            x = x + _look_up(self.whole_word, batch.whole_word_ids, domain)
        if self.category is not None:
            x = x + _look_up(self.category, batch.category_ids, domain)
        return x

    def encode(self, batch: EncoderBatch, positions: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Encoder states [B, S, D] and the additive padding mask [B, 1, 1, S].

        `positions` is the encoder's bias for S positions, if it is known already.
        """
        x = self.embed(batch)
        mask = padding_mask(batch.input_ids != PAD_ID, x.dtype) if batch.is_padded else None
        return self.encoder(x, mask, batch.rows, positions), mask

    def memorise(self, batch: EncoderBatch, positions: Tensor | None = None) -> Memory:
        """What the decoder reads from the prompts."""
        states, mask = self.encode(batch, positions)
        return self.decoder.memorise(states, mask)

    def logits(self, states: Tensor) -> Tensor:
        """Decoder states [..., D] → logits [..., V] in float32."""
        scale = self.config.d_model**-0.5 if self.config.tie_word_embeddings else 1.0
        return self.head.in_float32(states * scale)

    def decode(self, target_ids: Tensor, memory: Memory, rows: RowIndex) -> Tensor:
        """Teacher forcing: logits [B, T, V] that predict target_ids [B, T]."""
        inputs = functional.pad(target_ids[:, :-1], (1, 0), value=START_ID)
        x = functional.embedding(inputs, self.shared)
        return self.logits(self.decoder(x, memory, rows))

    def step(self, tokens: Tensor, bias: Tensor, cache: StepCache, memory: Memory, rows: RowIndex) -> Tensor:
        """Logits [B, K, V] after one more token per beam, tokens [B, K]; bias: the step's entry of `step_biases`."""
        x = functional.embedding(tokens, self.shared)
        return self.logits(self.decoder.step(x, bias, cache, memory, rows))

    def grow(self, tokens: Tensor, tree: BeamTree, memory: Memory, rows: RowIndex) -> Tensor:
        """Logits [B, K, V] after one more token per beam of a tree, tokens [B, K]; call `branch` first."""
        x = functional.embedding(tokens, self.shared)
        return self.logits(self.decoder.grow(x, tree, memory, rows))

    def step_biases(self, max_length: int) -> list[Tensor]:
        """The position bias of each step t of a decode loop: [1, H, 1, t + 1]."""
        bias = self.decoder.positions(max_length).to(self.shared.dtype)
        return [bias[:, :, t : t + 1, : t + 1] for t in range(max_length)]

    def new_cache(self, num_rows: int, num_beams: int, max_length: int) -> KeyValueCache:
        """A cache for the keys and values of `max_length` tokens per beam."""
        config = self.config
        shape = (config.num_decoder_layers, 2, num_rows, num_beams, config.num_heads, max_length, config.d_kv)
        return KeyValueCache(torch.zeros(shape, dtype=self.shared.dtype, device=self.shared.device))

    def new_tree_data(self, num_rows: int, plan: TreePlan) -> Tensor:
        """Storage for the keys and values of a beam tree: zeros [L, B, P, 2, H, E]."""
        config = self.config
        shape = (config.num_decoder_layers, num_rows, plan.num_places, 2, config.num_heads, config.d_kv)
        return torch.zeros(shape, dtype=self.shared.dtype, device=self.shared.device)

    def forward(self, batch: EncoderBatch, target_ids: Tensor) -> Tensor:
        """Logits [B, T, V] of targets by teacher forcing; targets may be padded with any valid id."""
        return self.decode(target_ids, self.memorise(batch), batch.rows)

    def _tables(self, num_rows: int) -> nn.Parameter | None:
        if num_rows == 0:
            return None
        return nn.Parameter(torch.zeros(len(self.layouts), num_rows, self.config.d_model))


def _look_up(tables: Tensor, ids: Tensor, index: BankIndex) -> Tensor:
    """Look up ids [B, S] in each batch row's own table, tables [C, R, D]: [B, S, D]."""
    if isinstance(index, int):
        return functional.embedding(ids, tables[index])
    return functional.embedding(ids + entries(index).unsqueeze(1) * tables.shape[1], tables.flatten(0, 1))

"""A model of T5-small's size with random weights, a catalog like Toys, and requests in the shape of real ones.

Needs nothing outside of the repository. If ../shared exists, identifiers are those of the real catalog; otherwise
numbers are split into tokens much like T5's tokenizer splits them.
"""

# N items, I images, F feature width

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.random_weights import initial_weights
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.trie import Trie
from model.engine.plans import Plan, RankingPlan
from model.network.config import BackboneConfig, DomainLayout
from model.network.network import EOS_ID, Vip5Network
from model.network.weights import freeze, load_backbone, load_domain
from model.prompts.prompt import Prompt

TOYS_TOKENS = Path(__file__).resolve().parent.parent.parent / "shared/golden/common/item_tokens_toys.json"

T5_SMALL = BackboneConfig(
    vocab_size=32100, d_model=512, d_kv=64, d_ff=2048, num_heads=8, num_layers=6, num_decoder_layers=6
)
TINY = BackboneConfig(vocab_size=600, d_model=32, d_kv=8, d_ff=64, num_heads=4, num_layers=1, num_decoder_layers=1)

_FEATURE_DIM = 512
_VISUAL_TOKENS = 2
_TEMPLATE_TOKENS = 14
_WORDS = (3, 100)  # token ids of template texts
_PIECES = 150  # first token id of numbers


@dataclass(frozen=True)
class Size:
    """Size of a run."""

    backbone: BackboneConfig
    num_items: int
    num_requests: int
    num_domains: int

    @property
    def layout(self) -> DomainLayout:
        return DomainLayout(
            bottleneck=self.backbone.d_model // 8,
            cross_attention_adapter=True,
            one_adapter_for_all_tasks=True,
            visual_tokens=_VISUAL_TOKENS,
            feature_dim=_FEATURE_DIM,
            visual_norm=True,
            whole_word_rows=1024,
            category_rows=16,
        )


FULL = Size(T5_SMALL, num_items=11_924, num_requests=1000, num_domains=32)
QUICK = Size(TINY, num_items=150, num_requests=6, num_domains=3)


@dataclass(frozen=True, eq=False)
class Workload:
    """The input of all contenders."""

    size: Size
    identifiers: list[tuple[int, ...]]  # without `</s>`
    trie: Trie
    plans: list[RankingPlan]  # of domain 0
    is_real_catalog: bool

    def mixed(self) -> list[RankingPlan]:
        """The same requests, assigned to random domains."""
        slots = np.random.default_rng(5).integers(0, self.size.num_domains, len(self.plans))
        return [replace(plan, slot=int(slot)) for plan, slot in zip(self.plans, slots, strict=True)]


def make_workload(size: Size, *, k: int, num_beams: int) -> Workload:
    identifiers, is_real = _identifiers(size)
    flat = np.concatenate([np.array(identifier, dtype=np.int64) for identifier in identifiers])
    offsets = np.cumsum([0, *map(len, identifiers)], dtype=np.int64)
    trie = Trie.build(flat, offsets, eos_id=EOS_ID)
    everything = LeafMask.of(np.ones(trie.num_leaves, dtype=np.bool_))
    leaves = trie.leaves_of_rows
    generator = np.random.default_rng(1)
    plans = []
    for _ in range(size.num_requests):
        length = min(3 + int(np.exp(generator.normal(1.4, 0.75))), 48)
        history = generator.integers(0, size.num_items, length)
        plan = _plan(size, [identifiers[row] for row in history], generator)
        eligibility = Eligibility.of(everything, exclude=leaves[history].tolist())
        plans.append(RankingPlan(**vars(plan), eligibility=eligibility, k=k, num_beams=num_beams))
    return Workload(size, identifiers, trie, plans, is_real)


def make_network(size: Size) -> tuple[Vip5Network, dict[str, torch.Tensor]]:
    """A frozen network with all domains, and the weights of the backbone and domain 0 by their checkpoint names."""
    backbone = initial_weights(expected_shapes(size.backbone), 7)
    network = Vip5Network(size.backbone, [size.layout] * size.num_domains)
    load_backbone(network, backbone)
    for slot in range(size.num_domains):
        domain = initial_weights(expected_domain_shapes(size.backbone, size.layout), 8 + slot)
        load_domain(network, slot, {**backbone, **domain})
        if slot == 0:
            backbone = {**backbone, **domain}
    freeze(network)
    return network, backbone


def _plan(size: Size, history: Sequence[tuple[int, ...]], generator: np.random.Generator) -> Plan:
    """A template, then for each item its identifier, visual tokens and a comma."""
    image_id = size.backbone.vocab_size - 1
    words = generator.integers(*_WORDS, _TEMPLATE_TOKENS)
    ids: list[int] = [int(word) for word in words]
    whole_words = list(range(_TEMPLATE_TOKENS))
    categories = [0] * _TEMPLATE_TOKENS
    for place, identifier in enumerate(history):
        tokens = [*identifier, *[image_id] * _VISUAL_TOKENS, 6]
        ids += tokens
        whole_words += [_TEMPLATE_TOKENS + place] * len(tokens)
        categories += [int(token == image_id) for token in tokens]
    ids.append(EOS_ID)
    whole_words.append(_TEMPLATE_TOKENS + len(history))
    categories.append(0)
    prompt = Prompt(_array(ids), _array(whole_words), _array(categories), (), len(ids))
    features = generator.standard_normal((len(history), _FEATURE_DIM)).astype(np.float32)
    return Plan(slot=0, task="sequential", template="A-3", prompts=(prompt,), features=(features,))


def _identifiers(size: Size) -> tuple[list[tuple[int, ...]], bool]:
    if size is FULL and TOYS_TOKENS.is_file():
        rows: list[list[int]] = json.loads(TOYS_TOKENS.read_text(encoding="utf-8"))
        return [tuple(row[:-1]) for row in rows], True
    return [_pieces(str(number)) for number in range(1, size.num_items + 1)], False


def _pieces(digits: str) -> tuple[int, ...]:
    """Two digits per token; the first tokens of numbers differ from later ones, as with T5."""
    pairs = [digits[start : start + 2] for start in range(0, len(digits), 2)]
    numbers = [int(pair) if len(pair) == 2 else 100 + int(pair) for pair in pairs]
    return (_PIECES + numbers[0], *(_PIECES + 200 + number for number in numbers[1:]))


def _array(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)

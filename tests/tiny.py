"""Small things with random weights, in the very forms of the real ones: a tokenizer, a VIP5 checkpoint, a bundle."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.shapes import SHARED, Shape, adapter_places, expected_domain_shapes, expected_shapes
from model.bundle.users import Users
from model.bundle.writer import BundleWriter
from model.network.config import TASKS, BackboneConfig, DomainLayout

_SPECIAL = ("<pad>", "</s>", "<unk>")
_LAST = ("<extra_id_1>", "<extra_id_0>")
_WORDS = (
    "user",
    "item",
    "star",
    "the",
    "purchase",
    "history",
    "to",
    "of",
    "for",
    "next",
    "unknown",
    "title",
    "toy",
    "yes",
    "no",
)


def tiny_tokenizer() -> Tokenizer:
    """A unigram tokenizer shaped like T5's: pad 0, `</s>` 1, unk 2, `<extra_id_0>` last; ASCII only.

    Numbers up to 99 are one token at the start of a word, so longer ones have proper prefixes among the shorter.
    """
    characters = string.digits + string.ascii_letters + "_,.?()'!:;&/$-><"
    words = [*_WORDS, *(str(number) for number in range(10, 100))]
    pieces = ["▁", *characters, *(f"▁{c}" for c in string.digits), *(f"▁{w}" for w in words)]
    scored = [(piece, -10.0 - 0.001 * rank) for rank, piece in enumerate(pieces)]
    vocabulary = [(name, 0.0) for name in _SPECIAL] + scored + [(name, 0.0) for name in _LAST]

    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in (*_SPECIAL, *_LAST)])
    return tokenizer


TINY_BACKBONE = BackboneConfig(
    vocab_size=tiny_tokenizer().get_vocab_size(),
    d_model=16,
    d_kv=4,
    d_ff=24,
    num_heads=3,
    num_layers=2,
    num_decoder_layers=2,
)
TINY_LAYOUT = DomainLayout(
    bottleneck=4,
    cross_attention_adapter=True,
    one_adapter_for_all_tasks=True,
    visual_tokens=2,
    feature_dim=8,
    visual_norm=True,
    whole_word_rows=1024,
    category_rows=16,
)


@dataclass(frozen=True, eq=False)
class TinyCheckpoint:
    """A state dict as VIP5's trainer saves it, and the config.json beside it."""

    state_dict: dict[str, torch.Tensor]
    config: dict[str, object]

    def save(self, folder: Path, name: str = "tiny") -> tuple[Path, Path]:
        """Write <name>.pth and <name>.json; returns both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint, config = folder / f"{name}.pth", folder / f"{name}.json"
        torch.save(self.state_dict, checkpoint)
        config.write_text(json.dumps(self.config), encoding="utf-8")
        return checkpoint, config


def tiny_checkpoint(
    backbone: BackboneConfig = TINY_BACKBONE,
    layout: DomainLayout = TINY_LAYOUT,
    *,
    backbone_seed: int = 0,
    domain_seed: int = 1,
    prefix: str = "",
) -> TinyCheckpoint:
    """Random weights under VIP5's names, aliases included. `prefix="module."` gives a checkpoint saved from DDP."""
    tensors = random_tensors(expected_shapes(backbone), backbone_seed)
    tensors |= random_tensors(expected_domain_shapes(backbone, layout), domain_seed)
    if layout.bottleneck and layout.one_adapter_for_all_tasks:
        _alias_adapters(tensors, backbone, layout)
    for stack in ("encoder", "decoder"):
        tensors[f"{stack}.embed_tokens.weight"] = tensors[SHARED]
    if backbone.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors[SHARED]
    return TinyCheckpoint({prefix + name: tensor for name, tensor in tensors.items()}, _config(backbone, layout))


def random_tensors(shapes: dict[str, Shape], seed: int) -> dict[str, torch.Tensor]:
    """Norm weights around 1, everything else wide enough that every part shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        is_norm = name.endswith(("norm.weight", "feat_embedding.1.weight"))
        tensors[name] = 1 + 0.2 * noise if is_norm else noise * 0.3
    return tensors


def _alias_adapters(tensors: dict[str, torch.Tensor], backbone: BackboneConfig, layout: DomainLayout) -> None:
    for place in adapter_places(backbone, layout):
        for part in ("down_sampler.weight", "down_sampler.bias", "up_sampler.weight", "up_sampler.bias"):
            for task in TASKS[1:]:
                tensors[f"{place}.adapters.{task}.{part}"] = tensors[f"{place}.adapters.{TASKS[0]}.{part}"]


def _config(backbone: BackboneConfig, layout: DomainLayout) -> dict[str, object]:
    reduction_factor = backbone.d_model // layout.bottleneck if layout.bottleneck else 8
    return {
        **asdict(backbone),
        "model_type": "t5",
        "max_text_length": 1024,
        "adapter": {"tasks": list(TASKS), "use_single_adapter": layout.one_adapter_for_all_tasks},
        "use_adapter": layout.bottleneck > 0,
        "use_single_adapter": layout.one_adapter_for_all_tasks,
        "add_adapter_cross_attn": layout.cross_attention_adapter,
        "reduction_factor": reduction_factor,
        "feat_dim": layout.feature_dim,
        "n_vis_tokens": layout.visual_tokens,
        "image_feature_type": "vitb32",
        "use_vis_layer_norm": layout.visual_norm,
        "whole_word_embed": layout.whole_word_rows > 0,
        "category_embed": layout.category_rows > 0,
    }


def tiny_catalog(num_items: int = 120) -> Catalog:
    """Items `item-1`… whose identifiers are their numbers; every 10th is inactive, every 7th has no title."""
    return Catalog.from_rows(
        {
            "item_id": f"item-{number}",
            "index": str(number),
            "title": None if number % 7 == 0 else f"toy number {number}",
            "image": f"images/{number}.png",
            "active": number % 10 != 0,
            "category": ("dolls", "games", "puzzles")[number % 3],
            "price": number / 4,
            "tags": ["new"] * (number % 2) + ["red"] * (number % 5 == 0),
        }
        for number in range(1, num_items + 1)
    )


def tiny_features(catalog: Catalog, dim: int, seed: int = 3) -> ItemFeatures:
    """Random embeddings of all items but every 11th."""
    item_ids = tuple(item_id for row, item_id in enumerate(catalog.item_ids) if row % 11 != 10)
    features = np.random.default_rng(seed).standard_normal((len(item_ids), dim)).astype(np.float32)
    return ItemFeatures(item_ids, features)


def tiny_bundle(
    folder: Path,
    domains: Sequence[str] = ("toys",),
    *,
    backbone: BackboneConfig = TINY_BACKBONE,
    layouts: Mapping[str, DomainLayout] | None = None,
    num_items: int = 120,
) -> Path:
    """A bundle at <folder>/bundle with random weights, users `u1`…`u9` and image features; returns its path.

    `layouts` gives some of the domains another layout than TINY_LAYOUT.
    """
    root = folder / "bundle"
    catalog = tiny_catalog(num_items)
    users = Users.from_rows({"user_id": f"u{n}", "index": str(n), "name": f"Ann {n}"} for n in range(1, 10))
    with BundleWriter(root) as writer:
        writer.share_backbone(backbone, random_tensors(expected_shapes(backbone), 0), tiny_tokenizer())
        for seed, name in enumerate(domains, start=1):
            layout = (layouts or {}).get(name, TINY_LAYOUT)
            dim = layout.feature_dim
            spec = DomainSpec(name, layout, "", encoder=ImageEncoder("vitb32", dim) if dim else None, trained=False)
            adapter = random_tensors(expected_domain_shapes(backbone, layout), seed)
            features = tiny_features(catalog, dim) if dim else None
            writer.add_domain(spec, adapter, catalog, users=users, features=features)
        writer.seal()
    return root

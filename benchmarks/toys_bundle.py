"""A bundle of T5-small's size over the real Toys catalog, with random weights, and real histories for requests."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.random_weights import initial_weights
from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.writer import BundleWriter
from model.network.config import BackboneConfig, DomainLayout

DOMAIN = "toys"
CONFIG = BackboneConfig(
    vocab_size=32100,
    d_model=512,
    d_kv=64,
    d_ff=2048,
    num_heads=8,
    num_layers=6,
    num_decoder_layers=6,
)
LAYOUT = DomainLayout(
    bottleneck=64,
    cross_attention_adapter=True,
    one_adapter_for_all_tasks=True,
    visual_tokens=2,
    feature_dim=512,
    visual_norm=True,
    whole_word_rows=1024,
    category_rows=16,
)
_SEED = 7


@dataclass(frozen=True)
class Purchases:
    """A user's purchases except for the last, as item ids, oldest first."""

    user_index: str
    history: tuple[str, ...]


def build(root: Path, data: Path) -> None:
    """Write the bundle to `root` from the shared data folder."""
    tokenizer = Tokenizer.from_file(str(data / "t5-tokenizer" / "tokenizer.json"))
    catalog = Catalog.from_rows(_rows(data))
    features = np.stack([_feature(int(index)) for index in catalog.indices])
    spec = DomainSpec(
        name=DOMAIN,
        layout=LAYOUT,
        backbone_sha256="",
        encoder=ImageEncoder("random", LAYOUT.feature_dim),
        trained=False,
    )
    with BundleWriter(root) as writer:
        writer.share_backbone(CONFIG, initial_weights(expected_shapes(CONFIG), _SEED), tokenizer)
        adapter = initial_weights(expected_domain_shapes(CONFIG, LAYOUT), _SEED + 1)
        writer.add_domain(spec, adapter, catalog, features=ItemFeatures(tuple(catalog.item_ids), features))
        writer.seal()


def sample_purchases(data: Path, num_users: int) -> list[Purchases]:
    """Real users, sampled with a fixed seed."""
    asin_of = _asins(data)
    lines = _read(data / "amazon" / "toys" / "sequential_data.txt.gz").splitlines()
    purchases = []
    for line in random.Random(_SEED).sample(lines, num_users):
        user_index, *items = line.split()
        purchases.append(Purchases(user_index, tuple(asin_of[item] for item in items[:-1])))
    return purchases


def write_requests(path: Path, data: Path, num_users: int) -> None:
    """Real users' sequential requests as `vip5 predict` reads them."""
    lines = [
        json.dumps({"task": "sequential", "domain": DOMAIN, "history": each.history})
        for each in sample_purchases(data, num_users)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(data: Path) -> list[dict[str, str]]:
    asin_of = _asins(data)
    lines = _read(data / "amazon" / "toys" / "items.jsonl.gz").splitlines()
    titles = {str(item["item"]): str(item["title"]) for item in map(json.loads, lines) if item["title"]}
    numbers = sorted(asin_of, key=int)
    return [
        {"item_id": asin_of[number], "index": number, "title": titles.get(number, "unknown title")}
        for number in numbers
    ]


def _asins(data: Path) -> dict[str, str]:
    asin_of: dict[str, str] = json.loads(_read(data / "amazon" / "toys" / "datamaps.json.gz"))["id2item"]
    return asin_of


def _feature(index: int) -> NDArray[np.float32]:
    noise = np.random.default_rng([_SEED, LAYOUT.feature_dim, index]).standard_normal(LAYOUT.feature_dim)
    return np.asarray(noise / np.linalg.norm(noise) * 10, dtype=np.float32)


def _read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()

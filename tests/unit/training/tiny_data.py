"""A small dataset with pictures, reviews and negatives, and run files over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.bundle.users import Users
from model.datasets.dataset import Dataset, Provenance, Review, Sequences
from tests.tiny import tiny_catalog, tiny_features, tiny_tokenizer

NUM_USERS = 40
FEATURE_DIM = 8


def tiny_dataset(name: str = "tiny", *, num_items: int = 60, seed: int = 0) -> Dataset:
    """Users `u1`… with 4 to 9 items each; every other user reviewed their first item."""
    random = np.random.default_rng(seed)
    catalog = tiny_catalog(num_items)
    lengths = random.integers(4, 10, size=NUM_USERS)
    items = [random.choice(num_items, size=length, replace=False) for length in lengths]
    return Dataset(
        provenance=Provenance(name=name, source="made by a test"),
        catalog=catalog,
        users=Users.from_rows(
            {"user_id": f"u{n}", "index": str(n), "name": f"Ann {n}"} for n in range(1, NUM_USERS + 1)
        ),
        sequences=Sequences(np.concatenate(items).astype(np.int64), np.concatenate([[0], np.cumsum(lengths)])),
        reviews=tuple(
            Review(
                user=user,
                item=int(items[user][0]),
                split=("train", "train", "val", "test")[user // 2 % 4],
                star_rating=float(1 + user % 5),
                headline="a fine toy",
                feature="toy",
                explanation=f"the toy for user {user}",
            )
            for user in range(0, NUM_USERS, 2)
        ),
        features=tiny_features(catalog, FEATURE_DIM),
    )


def write_run(folder: Path, text: str, *, name: str = "run") -> Path:
    """A run file <folder>/<name>.toml beside the dataset and the tokenizer that it may name."""
    data = folder / "data"
    if not data.exists():
        tiny_dataset().write(data)
        tiny_tokenizer().save(str(folder / "tokenizer.json"))
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


_COMMON = """
[images]
tokens = 2

[prompts]
max_tokens = 128
num_candidates = 10

[optimiser]
steps = 6
batch_size = 4

[record]
checkpoint_every = 2
validate_every = 3
validation_batches = 2
log_every = 1
"""

FROM_SCRATCH = (
    """
out = "bundle"
tune = "from_scratch"

[[domains]]
name = "toys"
data = "data"

[backbone]
tokenizer = "tokenizer.json"
d_model = 16
d_kv = 4
d_ff = 24
num_heads = 3
num_layers = 2
num_decoder_layers = 2

[adapters]
reduction_factor = 0
"""
    + _COMMON
)

ADAPTERS = (
    """
out = "bundle"

[[domains]]
name = "toys"
data = "data"

[adapters]
reduction_factor = 4
"""
    + _COMMON
)

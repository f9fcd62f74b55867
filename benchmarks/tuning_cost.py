"""What does tuning adapters save compared with tuning all weights?

Method: a model of T5-small's size over the real Toys purchases, two visual tokens per item (random embeddings cost the
same). Three ways of tuning run the same steps on the same batches, each in its own process, interleaved, for several
rounds. A step is drawing the batch, forward and backward pass, and the optimiser; memory is the process' peak during
training.
Output: a table (medians over the rounds); the last line is JSON.

    python -m benchmarks.tuning_cost --data datasets/toys --tokenizer ../shared/data/t5-tokenizer/tokenizer.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.toys_bundle import CONFIG, LAYOUT
from model.bundle.features import ItemFeatures
from model.datasets.dataset import Dataset
from model.training.config import read_run
from model.training.tuning import TunedBundle, tune

WORK = Path(__file__).parent / ".work" / "tuning_cost"


@dataclass(frozen=True)
class Way:
    """The tuned weights, and the adapters."""

    tune: str
    adapters: str


WAYS = {
    "adapters": Way("adapters", "[adapters]\nreduction_factor = 8\n"),
    "adapters, none in cross-attention": Way("adapters", "[adapters]\nin_cross_attention = false\n"),
    "everything": Way("everything", "[adapters]\nreduction_factor = 0\n"),
}
_RUN = """
out = "{out}"
start = "start"
work = "work/{out}"
tune = "{tune}"

[[domains]]
name = "toys"
data = "data"

[images]
tokens = 2

[prompts]
tasks = {{ sequential = 1 }}
max_tokens = 512

[optimiser]
steps = {steps}
batch_size = {batch_size}

[record]
validation_batches = 0
checkpoint_every = 1000000
"""
_START = f"""
out = "start"
tune = "from_scratch"

[[domains]]
name = "base"
data = "data"

[backbone]
tokenizer = "{{tokenizer}}"
d_model = {CONFIG.d_model}
d_kv = {CONFIG.d_kv}
d_ff = {CONFIG.d_ff}
num_heads = {CONFIG.num_heads}
num_layers = {CONFIG.num_layers}
num_decoder_layers = {CONFIG.num_decoder_layers}

[adapters]
reduction_factor = 0

[optimiser]
steps = 1
batch_size = 1

[record]
validation_batches = 0
"""


def main() -> None:
    arguments = _arguments()
    _prepare(arguments.data, arguments.tokenizer)
    measured: dict[str, list[TunedBundle]] = {name: [] for name in WAYS}
    for number in range(arguments.rounds):
        for name in WAYS:
            measured[name].append(_measure(name, number, arguments))
    rows = {name: _row(results) for name, results in measured.items()}
    print(f"{'':34}{'trained':>12}{'of all':>8}{'ms a step':>11}{'peak MiB':>10}")
    for name, row in rows.items():
        print(f"{name:34}{row['trained']:12,.0f}{row['share']:8.1%}{row['step_ms']:11.0f}{row['peak_mib']:10.0f}")
    print(json.dumps({"steps": arguments.steps, "rounds": arguments.rounds, "threads": arguments.num_threads, **rows}))


def _prepare(data: Path, tokenizer: Path) -> None:
    """The dataset with random embeddings, and an initial model of this size."""
    if not (WORK / "data").exists():
        toys = Dataset.read(data)
        features = np.random.default_rng(0).standard_normal((len(toys.catalog), LAYOUT.feature_dim))
        pictured = replace(toys, features=ItemFeatures(tuple(toys.catalog.item_ids), features.astype(np.float16)))
        pictured.write(WORK / "data")
    if not (WORK / "start").exists():
        (WORK / "start.toml").write_text(_START.format(tokenizer=tokenizer.resolve()), encoding="utf-8")
        tune(read_run(WORK / "start.toml"))


def _measure(name: str, number: int, arguments: argparse.Namespace) -> TunedBundle:
    out = f"{name.replace(', ', '-').replace(' ', '-')}-{number}"
    path = WORK / f"{out}.toml"
    text = _RUN.format(out=out, tune=WAYS[name].tune, steps=arguments.steps, batch_size=arguments.batch_size)
    path.write_text(text + WAYS[name].adapters, encoding="utf-8")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        result = process.submit(_tune, path, arguments.num_threads).result()
    shutil.rmtree(WORK / out)  # the bundle is large and not needed
    return result


def _tune(path: Path, num_threads: int) -> TunedBundle:
    torch.set_num_threads(num_threads)
    return tune(read_run(path), restart=True)


def _row(results: list[TunedBundle]) -> dict[str, float]:
    return {
        "trained": results[0].counts.trainable,
        "share": results[0].counts.share,
        "step_ms": statistics.median(result.measures.median_step_s for result in results) * 1000,
        "peak_mib": statistics.median(result.measures.peak_memory_bytes for result in results) / 2**20,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the Toys dataset from vip5 data prepare lines")
    parser.add_argument("--tokenizer", type=Path, required=True, help="T5's tokenizer.json")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()

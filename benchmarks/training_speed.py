"""How many targets does a second of a processor train, with all positions in one pass and with VIP5's templates?

Method: real purchases, no pictures, models of random weights. One pass: identifiers of three codes and prompts of
nothing else, a T5 of 64 wide with 2 + 2 layers and dropout in the residual path, beside the same model with a prompt
for each target. VIP5's template A-3: a T5 of 96 wide, batches of 32 whose samples are shared out by length and whose
dropout is drawn by bytes, beside batches as they are drawn with torch's dropout. A step is drawing, forward and
backward pass, and the optimiser, on one thread. Ways are interleaved; a way's figure is that of its median round, in
seconds of the processor, which other work slows less.
Output: a table; the last line is JSON.

    python -m benchmarks.training_speed --codes datasets/beauty-codes --collaborative datasets/beauty-collaborative
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

from model.datasets.dataset import Dataset
from model.network import one_pass, stacks
from model.network.dropout import dropout
from model.training.batches import Examples
from model.training.config import read_run
from model.training.material import Material, material_of
from model.training.preparation import prepare
from model.training.tuned_model import TunedModel
from model.training.vocabulary import make_identifier_tokenizer, make_tokenizer

WORK = Path(__file__).parent / ".work" / "training_speed"
_RUN = """
out = "{name}"
tune = "from_scratch"

[[domains]]
name = "shop"
data = "{data}"

[backbone]
tokenizer = "{name}.json"
d_model = {width}
d_kv = 32
d_ff = {hidden}
num_heads = {heads}
num_layers = 2
num_decoder_layers = 2

[adapters]
reduction_factor = 0

[optimiser]
steps = 1000000
batch_size = {batch_size}
loss = "per_sample"
dropout = 0.1
dropout_places = "{places}"
"""
_ITEMS = """
[[templates]]
name = "items"
text = "{{history}}"
separator = ""
most_items = 20

[prompts]
tasks = {{ sequential = 1 }}
templates = ["items"]
default_sequential = "items"
targets = "{targets}"
max_history = 20
max_tokens = 64
"""
_VIP5 = """
[prompts]
tasks = { sequential = 1 }
templates = ["A-3"]
targets = "all"
max_history = 10
max_tokens = 256
"""
Dropout = Callable[..., torch.Tensor]


@dataclass(frozen=True, eq=False)
class Way:
    """A way of training: its batches, what takes gradients, and how dropout is drawn."""

    material: Material
    batches: Iterator[list[Any]]
    optimiser: torch.optim.Optimizer
    dropout: Dropout

    @classmethod
    def of(cls, material: Material, dataset: TorchDataset[Any], drops: Dropout = dropout) -> Way:
        optimiser = torch.optim.AdamW(material.model.parameters(), lr=1e-3, fused=True)
        return cls(material, _batches(dataset, material.batch_size), optimiser, drops)

    def targets_per_second(self, num_steps: int) -> float:
        """In seconds of the processor."""
        with mock.patch.object(stacks, "dropout", self.dropout), mock.patch.object(one_pass, "dropout", self.dropout):
            began = time.process_time()
            num_targets = sum(self._step() for _ in range(num_steps))
            return num_targets / (time.process_time() - began)

    def _step(self) -> int:
        """The number of targets."""
        batch = self.material.collator(next(self.batches))
        self.optimiser.zero_grad()
        self.material.model(**batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.material.model.parameters(), 1.0)
        self.optimiser.step()
        return int((batch["targets"][..., 0] >= 0).sum())


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    ways = {**_one_pass(arguments.codes), **_vip5(arguments.collaborative)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way.targets_per_second(1)
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            found[name].append(way.targets_per_second(arguments.steps))
    medians = {name: statistics.median(each) for name, each in found.items()}
    for name, each in found.items():
        num_parameters = ways[name].material.model.counts().total
        spread = f"({min(each):,.0f} to {max(each):,.0f})"
        print(f"{name:44}{num_parameters:12,}{medians[name]:10,.0f} targets a CPU second {spread}")
    print(json.dumps({"steps": arguments.steps, "rounds": arguments.rounds, "targets_per_cpu_s": medians}))


def _one_pass(data: Path) -> dict[str, Way]:
    WORK.mkdir(parents=True, exist_ok=True)
    tokenizer = make_identifier_tokenizer([Dataset.read(data)])
    size = {"data": data.resolve(), "width": 64, "hidden": 256, "heads": 2, "batch_size": 256, "places": "residual"}
    ways = {}
    for name, targets in (("a prompt for each target", "all"), ("all positions in one pass", "in_one_pass")):
        tokenizer.save(str(WORK / f"{targets}.json"))
        path = WORK / f"{targets}.toml"
        path.write_text(_RUN.format(name=targets, **size) + _ITEMS.format(targets=targets), encoding="utf-8")
        material = material_of(prepare(read_run(path)))
        ways[f"identifiers only, {name}"] = Way.of(material, material.batches("train", 1_000_000))
    return ways


def _vip5(data: Path) -> dict[str, Way]:
    make_tokenizer([Dataset.read(data)], 1000).save(str(WORK / "vip5.json"))
    path = WORK / "vip5.toml"
    size = {"data": data.resolve(), "width": 96, "hidden": 384, "heads": 3, "batch_size": 32, "places": "all"}
    path.write_text(_RUN.format(name="vip5", **size) + _VIP5, encoding="utf-8")
    preparation = prepare(read_run(path))
    ways = {}
    for name, length, drops in (("as drawn", 1, _torch_dropout), ("by length", 32, dropout)):
        (domain,) = preparation.domains
        material = material_of(preparation)
        examples = Examples(
            [domain.sampler],
            [None],
            split="train",
            seed=0,
            batch_size=material.batch_size,
            num_batches=1_000_000,
            round_length=length,
        )
        assert isinstance(material.model, TunedModel)
        ways[f"A-3, batches {name}"] = Way.of(material, examples, drops)
    return ways


def _batches(dataset: TorchDataset[Any], size: int) -> Iterator[list[Any]]:
    number = 0
    while True:
        yield [dataset[number + place] for place in range(size)]
        number += size


def _torch_dropout(x: torch.Tensor, share: float, *, is_training: bool) -> torch.Tensor:
    return functional.dropout(x, share, is_training)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--codes", type=Path, required=True, help="a dataset with identifiers of codes")
    parser.add_argument("--collaborative", type=Path, required=True, help="the dataset with collaborative identifiers")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()

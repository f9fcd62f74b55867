"""Batches of training samples: drawn by number, and padded to tensors."""

# B samples, S source length, T target length, I images, F feature width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from model.bundle.features import ItemFeatures
from model.datasets.dataset import Dataset
from model.network.banks import bank_index
from model.network.config import TASKS, Task
from model.network.loss import IGNORED
from model.network.network import Vip5Network
from model.prompts.padding import pad_features, pad_ids, pad_prompts
from model.training.sampling import DomainSampler, Kind, Sample, SampledSplit, all_kinds

ROUND_LENGTH = 32
"""Batches whose samples are shared out by length."""

_STREAMS: dict[SampledSplit, int] = {"train": 0, "val": 1}


@dataclass(frozen=True, eq=False)
class ImageTable:
    """A domain's image embeddings by catalog row; zero for items without one."""

    features: NDArray[np.float32]  # [N, F]
    missing_share: float

    @classmethod
    def of(cls, dataset: Dataset, found: ItemFeatures, missing_share: float) -> ImageTable:
        rows = np.zeros((len(dataset.catalog), found.dim), dtype=np.float32)
        kept = found.of(dataset.catalog)
        has_features = np.isin(np.array(dataset.catalog.item_ids, dtype=object), np.array(kept.item_ids, dtype=object))
        rows[has_features] = kept.features  # both are in the catalog's order
        return cls(rows, missing_share)

    def read(self, items: Sequence[int], random: np.random.Generator | None) -> NDArray[np.float32]:
        """Embeddings of catalog rows, [I, F]; with `random`, `missing_share` of them are zero."""
        rows: NDArray[np.float32] = self.features[np.asarray(items, dtype=np.int64)]
        if random is not None and self.missing_share:
            rows[random.random(len(rows)) < self.missing_share] = 0
        return rows


@dataclass(frozen=True, eq=False)
class Example:
    """A sample with its image embeddings and the number of its domain."""

    domain: int
    sample: Sample
    features: NDArray[np.float32]  # [I, F]


class Examples(TorchDataset[Example]):
    """`num_batches` batches of `batch_size` examples each; an example depends on the seed and its number only.

    Numbers are of samples. In every `round_length` batches, those of one kind share their samples out by length, so
    that little of a batch is padding.
    """

    def __init__(  # noqa: PLR0913  # what a batch depends on
        self,
        samplers: Sequence[DomainSampler],
        images: Sequence[ImageTable | None],
        *,
        split: SampledSplit,
        seed: int,
        batch_size: int,
        num_batches: int,
        round_length: int = ROUND_LENGTH,
    ) -> None:
        self._samplers = samplers
        self._images = images
        self._split = split
        self._seed = (seed, _STREAMS[split])
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._kinds = all_kinds(samplers, split)
        weights = np.array([kind.weight for kind in self._kinds])
        self._chances = weights / weights.sum()
        self._round_length = round_length
        self._round = lru_cache(maxsize=2)(self._shared_out)

    def __len__(self) -> int:
        return self._batch_size * self._num_batches

    def __getitem__(self, number: int) -> Example:
        size = self._batch_size * self._round_length
        return self._round(number // size)[number % size]

    def _shared_out(self, round_number: int) -> list[Example]:
        """The examples of a round, of similar length in each batch; which batches are long is drawn."""
        first = round_number * self._round_length
        # A run that ends sooner begins like a longer one; validation has nothing but its own batches.
        end = first + self._round_length
        batches = range(first, end if self._split == "train" else min(end, self._num_batches))
        places_of: dict[int, list[int]] = {}
        for place, batch in enumerate(batches):
            places_of.setdefault(self._kind_of(batch), []).append(place)
        examples: list[Example | None] = [None] * (len(batches) * self._batch_size)
        random = np.random.default_rng((*self._seed, 2, round_number))
        for kind, places in places_of.items():
            numbers = [number for place in places for number in self._numbers(first + place)]
            drawn = [self._draw(self._kinds[kind], number) for number in numbers]
            drawn.sort(key=lambda example: example.sample.prompt.num_tokens)
            for part, place in enumerate(random.permutation(places).tolist()):
                start = place * self._batch_size
                examples[start : start + self._batch_size] = drawn[part * self._batch_size :][: self._batch_size]
        return [example for example in examples if example is not None]

    def _numbers(self, batch: int) -> range:
        return range(batch * self._batch_size, (batch + 1) * self._batch_size)

    def _kind_of(self, batch: int) -> int:
        return int(np.random.default_rng((*self._seed, 0, batch)).choice(len(self._kinds), p=self._chances))

    def _draw(self, kind: Kind, number: int) -> Example:
        random = np.random.default_rng((*self._seed, 1, number))
        sample = self._samplers[kind.domain].draw(kind, self._split, random)
        images = self._images[kind.domain]
        features = np.zeros((0, 0), dtype=np.float32)
        if images is not None and sample.prompt.image_items:
            features = images.read(sample.prompt.image_items, random if self._split == "train" else None)
        return Example(kind.domain, sample, features)


@dataclass(frozen=True)
class Collator:
    """Turns examples of one domain into tensors, named as the arguments of `TunedModel.forward`."""

    adapter_rows: tuple[dict[Task, int], ...]  # by domain
    feature_dim: int

    @classmethod
    def of(cls, network: Vip5Network) -> Collator:
        """A collator for a network; it keeps no reference to it, so data loader processes do not copy the weights."""
        slots = range(len(network.layouts))
        rows = tuple({task: network.adapter_row(slot, task) for task in TASKS} for slot in slots)
        return cls(rows, network.feature_dim)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor | int]:
        domain = examples[0].domain
        assert all(example.domain == domain for example in examples)
        prompts = pad_prompts([example.sample.prompt for example in examples])
        features = [example.features for example in examples]
        return {
            **{name: torch.from_numpy(ids) for name, ids in prompts.items()},
            "features": torch.from_numpy(pad_features(features, max(map(len, features)), self.feature_dim)),
            "targets": torch.from_numpy(pad_ids([example.sample.target_ids for example in examples], filler=IGNORED)),
            "domain": domain,
            "adapter": bank_index([self.adapter_rows[domain][example.sample.task] for example in examples]),
        }

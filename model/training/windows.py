"""Windows of histories whose positions are all targets, in batches by tokens and of similar length.

A window is at most as long as the template reads, and one item longer, its last target. Long histories have several
windows, in which half of a window is history at least; a position is a target of one of them. An epoch is every window
once.
"""

# B windows, N items that are read, P tokens of an item, T target length, M items in all, W windows, F feature width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from model.errors import TrainingError
from model.network.config import Task
from model.network.loss import IGNORED
from model.network.network import EOS_ID, PAD_ID
from model.network.one_pass import ItemTokens
from model.prompts.prompt import Ids
from model.prompts.templates import Template
from model.training.batches import ImageTable
from model.training.sampling import DomainSampler, SampledSplit

_TASK: Task = "sequential"
_DEFAULT_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Window:
    """Items of a history, of which those from `first` on are targets."""

    items: Ids
    first: int


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Tokens of the catalog's items in a prompt and in a target."""

    read: Ids  # [M, P]
    said: Ids  # [M, T], with `</s>`
    item: ItemTokens
    num_visual: int

    @classmethod
    def of(cls, sampler: DomainSampler, template: Template, visual_tokens: int) -> ItemTable:
        """Raises TrainingError if identifiers differ in length."""
        rows, tokenizer = sampler.assembler.identifiers, sampler.tokenizer
        lengths = np.diff(rows.offsets)
        if lengths.min() != lengths.max():
            raise TrainingError(
                f"{sampler.dataset.provenance.name} has identifiers of {lengths.min()} to {lengths.max()} tokens, and "
                'targets = "in_one_pass" needs them equally long; index the dataset with vip5 data index --method '
                'residual or collaborative, or set prompts.targets = "all"'
            )
        identifiers = rows.flat.reshape(len(lengths), -1)
        separator = tokenizer.words(template.separator or "")
        after = np.array([*[tokenizer.image_id] * visual_tokens, *separator], dtype=np.int64)
        read = np.concatenate([identifiers, np.tile(after, (len(lengths), 1))], axis=1)
        ends = np.full((len(lengths), 1), tokenizer.eos_id, dtype=np.int64)
        return cls(
            read=read,
            said=np.concatenate([identifiers, ends], axis=1),
            item=ItemTokens(total=read.shape[1], separator=len(separator)),
            num_visual=visual_tokens,
        )


@dataclass(frozen=True, eq=False)
class WindowedDomain:
    """A domain's windows and what becomes of them in a batch."""

    sampler: DomainSampler
    table: ItemTable
    images: ImageTable | None
    windows: tuple[Window, ...]

    @classmethod
    def of(
        cls,
        sampler: DomainSampler,
        images: ImageTable | None,
        template: Template,
        visual_tokens: int,
        split: SampledSplit,
    ) -> WindowedDomain:
        assert template.most_items is not None
        table = ItemTable.of(sampler, template, visual_tokens)
        needed = template.most_items * table.item.total + 1 - table.item.separator
        if needed > sampler.prompts.max_tokens:
            raise TrainingError(
                f"{template.most_items} items of {table.item.total} tokens make prompts of {needed} tokens, more than "
                f"prompts.max_tokens, {sampler.prompts.max_tokens}; raise it, or lower most_items of "
                f"{template.template_id}"
            )
        return cls(sampler, table, images, tuple(_windows(sampler, template.most_items, split)))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Numbers of items that are read, [W]."""
        return np.array([len(window.items) - 1 for window in self.windows], dtype=np.int64)

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """Places of the first targets, [W]."""
        return np.array([window.first for window in self.windows], dtype=np.int64)

    @property
    def num_targets(self) -> int:
        return sum(len(window.items) - window.first for window in self.windows)

    def arrays(self, numbers: Sequence[int], random: np.random.Generator | None) -> dict[str, NDArray[np.generic]]:
        """A batch of windows; `random` draws last codes and missing images in training."""
        windows = [self.windows[number] for number in numbers]
        longest = max(len(window.items) for window in windows)
        items = np.zeros((len(windows), longest), dtype=np.int64)
        is_item, is_target = np.zeros((2, *items.shape), dtype=np.bool_)
        for row, window in enumerate(windows):
            size = len(window.items)
            items[row, :size], is_item[row, :size], is_target[row, window.first : size] = window.items, True, True
        read, said = self.table.read[items[:, :-1]], self.table.said[items[:, 1:]]
        if self.sampler.last_codes is not None and random is not None:
            self._redraw(items, read, said, random)
        read[~is_item[:, :-1]] = PAD_ID
        said[~is_target[:, 1:]] = IGNORED
        return {**self._prompts(read), "features": self._features(items, is_item, random), "targets": said}

    def _prompts(self, read: Ids) -> dict[str, Ids]:
        """The ids of items [B, N, P] and of their ends, [B, N·P + N]."""
        num_windows, num_items, _ = read.shape
        tokens = read.reshape(num_windows, -1)
        tokenizer = self.sampler.tokenizer
        nothing = np.zeros((num_windows, num_items), dtype=np.int64)
        parts = {
            "input_ids": (tokens, nothing + EOS_ID),
            "whole_word_ids": (tokenizer.starts_word(tokens).cumsum(axis=1), nothing),
            "category_ids": ((tokens == tokenizer.image_id).astype(np.int64), nothing),
        }
        return {name: np.concatenate(both, axis=1) for name, both in parts.items()}

    def _redraw(self, items: Ids, read: Ids, said: Ids, random: np.random.Generator) -> None:
        """Other last codes in each window; equal for one item, different for items of one path."""
        last_codes = self.sampler.last_codes
        assert last_codes is not None
        drawn = random.permuted(np.tile(last_codes.words, (len(items), 1)), axis=1)
        words = np.take_along_axis(drawn, last_codes.numbers[items], axis=1)
        place = said.shape[2] - 2
        read[:, :, place], said[:, :, place] = words[:, :-1], words[:, 1:]

    def _features(
        self, items: Ids, is_item: NDArray[np.bool_], random: np.random.Generator | None
    ) -> NDArray[np.float32]:
        if self.images is None or not self.table.num_visual:
            return np.zeros((len(items), 0, 0), dtype=np.float32)
        read, present = items[:, :-1], is_item[:, :-1]
        features = np.zeros((*read.shape, self.images.features.shape[1]), dtype=np.float32)
        features[present] = self.images.read(read[present].tolist(), random)
        return features


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Arrays of a batch, by the names of `OnePassModel.forward`, and its domain."""

    domain: int
    arrays: dict[str, NDArray[np.generic]]


class WindowBatches(TorchDataset[WindowBatch]):
    """Batches of all epochs, by number; a batch depends on the seed and its number only."""

    def __init__(
        self,
        domains: Sequence[WindowedDomain],
        *,
        split: SampledSplit,
        seed: int,
        batch_tokens: int | None,
        num_batches: int,
    ) -> None:
        self._domains = domains
        self._split = split
        self._seed = (seed, split == "val")
        self._batch_tokens = batch_tokens or _DEFAULT_BATCH_TOKENS
        self._num_batches = num_batches
        if not any(domain.windows for domain in domains):
            names = ", ".join(domain.sampler.dataset.provenance.name for domain in domains)
            raise TrainingError(
                f"{names}: no user has enough interactions for the split {split}; choose another dataset"
            )
        self._epoch = lru_cache(maxsize=2)(self._plan)
        self.batches_per_epoch = len(self._epoch(0))

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, number: int) -> WindowBatch:
        domain, windows = self._epoch(number // self.batches_per_epoch)[number % self.batches_per_epoch]
        random = np.random.default_rng((*self._seed, 1, number)) if self._split == "train" else None
        return WindowBatch(domain, self._domains[domain].arrays(windows, random))

    def _plan(self, epoch: int) -> list[tuple[int, list[int]]]:
        """The batches of an epoch, each with its domain and windows of about one length."""
        random = np.random.default_rng((*self._seed, 0, epoch))
        batches: list[tuple[int, list[int]]] = []
        for number, domain in enumerate(self._domains):
            order = random.permutation(len(domain.windows))
            order = order[np.lexsort((domain.firsts[order], domain.lengths[order]))]
            start = 0
            while start < len(order):
                end = self._end_of_batch(domain, order, start)
                batches.append((number, order[start:end].tolist()))
                start = end
        return [batches[place] for place in random.permutation(len(batches)).tolist()]

    def _end_of_batch(self, domain: WindowedDomain, order: NDArray[np.int64], start: int) -> int:
        """Windows get longer, so the last one says how long the rows are."""
        end = start + 1
        while end < len(order):
            length = int(domain.lengths[order[end]]) * (domain.table.item.total + 1)
            if (end + 1 - start) * length > self._batch_tokens:
                break
            end += 1
        return end


@dataclass(frozen=True)
class WindowCollator:
    """Turns a batch of `WindowBatches` into tensors, named as the arguments of `OnePassModel.forward`."""

    adapter_rows: tuple[int, ...]  # by domain
    feature_dim: int

    def __call__(self, batches: Sequence[WindowBatch]) -> dict[str, Tensor | int]:
        (batch,) = batches
        arrays = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
        features = arrays.pop("features")
        if features.shape[1]:
            features = torch.nn.functional.pad(features, (0, self.feature_dim - features.shape[2]))
        return {**arrays, "features": features, "domain": batch.domain, "adapter": self.adapter_rows[batch.domain]}


def _windows(sampler: DomainSampler, most: int, split: SampledSplit) -> list[Window]:
    sequences, windows = sampler.dataset.sequences, []
    for user in sequences.users(split).tolist():
        items = sequences.seen(user, split)
        if split == "val":
            items = np.append(items[-most:], sequences.target(user, "val"))
            windows.append(Window(items, len(items) - 1))
            continue
        end = min(len(items), most + 1)
        windows.append(Window(items[:end], 1))
        while end < len(items):
            first, end = end, min(len(items), end + max(1, most // 2))
            start = max(0, end - most - 1)
            windows.append(Window(items[start:end], first - start))
    return windows

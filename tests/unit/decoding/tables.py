"""Models without a network: logits by prefix, so that the log-probability of every identifier is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.beams import SpecialIds
from model.decoding.trie import Trie

Path: TypeAlias = tuple[int, ...]
LogitsOf: TypeAlias = Callable[[Path], NDArray[np.float64]]

EOS = 1
SPECIAL = SpecialIds(start=0, eos=EOS)
_NOISE = np.random.default_rng(0).standard_normal(1 << 16)


def random_table(seed: int, vocab_size: int, spread: float = 1.5) -> LogitsOf:
    """Logits that depend on the whole prefix."""

    def logits_of(prefix: Path) -> NDArray[np.float64]:
        start = hash((seed, prefix)) % (len(_NOISE) - vocab_size)
        return _NOISE[start : start + vocab_size] * spread

    return logits_of


class PathStepper:
    """A stepper that follows the path of every beam; each row has a table of its own."""

    def __init__(self, tables: Sequence[LogitsOf]) -> None:
        self._tables = tables
        self._paths: list[list[Path]] = []
        self.num_steps = 0

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        self.num_steps += 1
        if parents is None:
            assert set(tokens.flatten().tolist()) == {SPECIAL.start}
            self._paths = [[() for _ in beams] for beams in tokens.tolist()]
        else:
            self._paths = [
                [paths[parent] + (token,) for parent, token in zip(row_parents, row_tokens, strict=True)]
                for paths, row_parents, row_tokens in zip(self._paths, parents.tolist(), tokens.tolist(), strict=True)
            ]
        logits = [[table(path) for path in paths] for table, paths in zip(self._tables, self._paths, strict=True)]
        return torch.from_numpy(np.array(logits)).float()


def log_prob(table: LogitsOf, tokens: Sequence[int]) -> float:
    """Log-probability of tokens, `</s>` included if it is to count."""
    total = 0.0
    for step, token in enumerate(tokens):
        logits = table(tuple(tokens[:step]))
        total += float(logits[token] - np.logaddexp.reduce(logits))
    return total


def item_scores(
    table: LogitsOf, items: Sequence[Path], length_penalty: float = 0.0, boosts: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Final score of every identifier; the length counts the start token, not `</s>`."""
    sums = np.array([log_prob(table, (*item, EOS)) for item in items]) + (0 if boosts is None else boosts)
    scores: NDArray[np.float64] = sums / np.array([(len(item) + 1) ** length_penalty for item in items])
    return scores


def build_trie(items: Sequence[Path]) -> Trie:
    flat = np.array([token for item in items for token in item], dtype=np.int64)
    offsets = np.cumsum([0, *(len(item) for item in items)], dtype=np.int64)
    return Trie.build(flat, offsets, eos_id=EOS)


def nodes_by_level(items: Iterable[Path]) -> list[int]:
    """Number of distinct prefixes of each length from 1, `</s>` included."""
    ended = [(*item, EOS) for item in items]
    return [
        len({item[:length] for item in ended if len(item) >= length}) for length in range(1, max(map(len, ended)) + 1)
    ]

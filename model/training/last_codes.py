"""Last codes that are drawn anew for every training sample, so that a model learns paths of codes, not single items."""

# N items, G last codes of a path

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.bundle.codebook import Codebook
from model.errors import TrainingError
from model.prompts.assembly import ItemTokens, TokenRows
from model.prompts.tokenizer import TextTokenizer


@dataclass(frozen=True, eq=False)
class LastCodes:
    """Token rows of a domain's items, of which `redraw` replaces the last code in place.

    `tokens` are for one assembler; not for several threads at once.
    """

    tokens: ItemTokens
    paths: NDArray[np.int64]  # [N], equal for items with the same codes but the last one
    words: NDArray[np.int64]  # [G], the token of each last code
    numbers: NDArray[np.int64]  # [N], the last code of each item in the catalog

    @classmethod
    def of(cls, codebook: Codebook, indices: tuple[str, ...], tokenizer: TextTokenizer) -> LastCodes:
        """Raises TrainingError if a last code is not one token, or an index is not made of the codebook."""
        first = codebook.first_words[-1]
        words = tokenizer.identifiers([str(first + last) for last in range(codebook.num_last)])
        long = next((number for number, ids in enumerate(words, start=first) if len(ids) != 1), None)
        if long is not None:
            raise TrainingError(
                f"the last code {long} has several tokens, and last codes can be drawn only if each has one; index the "
                "dataset with a smaller --first-code or fewer last codes, or take a tokenizer with these numbers"
            )
        codes = [codebook.codes_of(index) for index in indices]
        strange = next((index for index, found in zip(indices, codes, strict=True) if found is None), None)
        if strange is not None:
            raise TrainingError(f"the index {strange!r} is not made of the codebook; index the dataset again")
        numbers: dict[tuple[int, ...], int] = {}
        paths = [numbers.setdefault(found[:-1], len(numbers)) for found in codes if found is not None]
        tokens = ItemTokens.of(TokenRows.of_texts(indices, tokenizer), indices, tokenizer)
        lasts = np.array([found[-1] for found in codes if found is not None], dtype=np.int64)
        return cls(tokens, np.array(paths, dtype=np.int64), np.array([ids[0] for ids in words], dtype=np.int64), lasts)

    def redraw(self, items: Iterable[int], random: np.random.Generator) -> None:
        """Give these items, rows of the catalog, last codes by lot; those of one path get different ones."""
        taken: set[tuple[int, int]] = set()
        for item in dict.fromkeys(items):
            path = int(self.paths[item])
            last = int(random.integers(len(self.words)))
            while (path, last) in taken:
                last = (last + 1) % len(self.words)
            taken.add((path, last))
            for rows in (self.tokens.identifiers, self.tokens.prefixed):
                rows.flat[rows.offsets[item + 1] - 1] = self.words[last]

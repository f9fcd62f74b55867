"""The rules for item identifiers: the token sequences that the model generates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.errors import CatalogError
from model.prompts.tokenizer import TextTokenizer


def check_identifiers(indices: Sequence[str], item_ids: Sequence[str], tokenizer: TextTokenizer, where: str) -> None:
    """Raise CatalogError, naming the first item at fault, unless every identifier can be generated and told apart.

    An identifier has at least one token, none that is unknown, padding, `</s>` or the image's, and its token sequence
    is no other item's.
    """
    sequences = tokenizer.identifiers(indices)
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    tokens = np.fromiter((token for sequence in sequences for token in sequence), dtype=np.int64, count=lengths.sum())

    for row in np.flatnonzero(lengths == 0)[:1]:
        raise CatalogError(f"{where}: the index of item {item_ids[row]!r} is empty; give the text that names it")

    forbidden = [tokenizer.unk_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.image_id]
    for position in np.flatnonzero(np.isin(tokens, forbidden))[:1]:
        row = int(np.searchsorted(np.cumsum(lengths), position, side="right"))
        raise CatalogError(
            f"{where}: the index {indices[row]!r} of item {item_ids[row]!r} has the token "
            f"{tokenizer.token(int(tokens[position]))}, which the model cannot generate; choose a text without it"
        )
    _check_unique(sequences, indices, item_ids, where)


def _check_unique(
    sequences: Sequence[Sequence[int]], indices: Sequence[str], item_ids: Sequence[str], where: str
) -> None:
    first_row: dict[tuple[int, ...], int] = {}
    for row, sequence in enumerate(sequences):
        other = first_row.setdefault(tuple(sequence), row)
        if other != row:
            raise CatalogError(
                f"{where}: items {item_ids[other]!r} and {item_ids[row]!r} have the same tokens as index "
                f"({indices[other]!r} and {indices[row]!r}); an index names one item only"
            )

"""Tokenising and checking item identifiers, the token sequences that the model generates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.errors import CatalogError
from model.prompts.assembly import TokenRows
from model.prompts.tokenizer import TextTokenizer


def tokenise_identifiers(
    indices: Sequence[str], item_ids: Sequence[str], tokenizer: TextTokenizer, where: str
) -> TokenRows:
    """Token rows of the items' index texts, without `</s>`.

    Raises CatalogError, naming the first invalid item, unless every identifier can be generated and is unique: it has a
    token, no unknown, padding, `</s>` or image token, and no other item has the same tokens.
    """
    rows = TokenRows.of_texts(indices, tokenizer)
    lengths = np.diff(rows.offsets)
    if not lengths.all():
        item_id = item_ids[int(np.argmin(lengths))]
        raise CatalogError(f"{where}: the index of item {item_id!r} has no tokens; give it a non-empty text")
    forbidden = (tokenizer.unk_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.image_id)
    is_forbidden = np.isin(rows.flat, forbidden)
    if is_forbidden.any():
        place = int(np.argmax(is_forbidden))
        row = int(np.searchsorted(rows.offsets, place, side="right")) - 1
        raise CatalogError(
            f"{where}: the index {indices[row]!r} of item {item_ids[row]!r} has the token "
            f"{tokenizer.token(int(rows.flat[place]))}, which the model cannot generate; choose a text without it"
        )
    _check_unique(rows, indices, item_ids, where)
    return rows


def _check_unique(rows: TokenRows, indices: Sequence[str], item_ids: Sequence[str], where: str) -> None:
    first_row: dict[bytes, int] = {}
    for row in range(len(rows)):
        other = first_row.setdefault(rows.row(row).tobytes(), row)
        if other != row:
            raise CatalogError(
                f"{where}: items {item_ids[other]!r} and {item_ids[row]!r} have the same tokens as index "
                f"({indices[other]!r} and {indices[row]!r}); give each item a unique index"
            )

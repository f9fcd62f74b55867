"""What a catalog's identifiers become when a domain is loaded: tokens for prompts, and the trie that is searched."""

# N items

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.decoding.trie import Trie
from model.decoding.trie_growth import with_identifier, with_leaf
from model.prompts.assembly import ItemTokens, TokenRows
from model.prompts.tokenizer import TextTokenizer

_MOST_INSERTED = 16
"""Identifiers up to this number are added one by one, each in a fortieth of the time of building the trie again."""


@dataclass(frozen=True, eq=False)
class CompiledItems:
    """Made from identifiers once; costs most of a large domain's start."""

    tokens: ItemTokens
    trie: Trie
    leaves_of_rows: NDArray[np.int32]  # [N], leaf of the trie by catalog row

    @classmethod
    def of(cls, identifiers: TokenRows, indices: Sequence[str], tokenizer: TextTokenizer) -> CompiledItems:
        """From the items' index texts and their tokens."""
        return cls._of(ItemTokens.of(identifiers, indices, tokenizer), tokenizer)

    def grown(self, identifiers: TokenRows, added: Sequence[str], tokenizer: TextTokenizer) -> CompiledItems:
        """With more items at the end, whose index texts are `added`; `identifiers` are those of all items."""
        tokens = self.tokens.grown(identifiers, added, tokenizer)
        if len(added) > _MOST_INSERTED:
            return self._of(tokens, tokenizer)
        trie, leaves = self.trie, self.leaves_of_rows
        for row in range(len(leaves), len(identifiers)):
            trie = with_identifier(trie, [*identifiers.row(row).tolist(), tokenizer.eos_id], row)
            leaves = with_leaf(leaves, int(np.argmax(trie.rows_of_leaves == row)))
        return CompiledItems(tokens, trie, leaves)

    @classmethod
    def _of(cls, tokens: ItemTokens, tokenizer: TextTokenizer) -> CompiledItems:
        rows = tokens.identifiers
        trie = Trie.build(rows.flat, rows.offsets, eos_id=tokenizer.eos_id)
        return cls(tokens, trie, trie.leaves_of_rows)

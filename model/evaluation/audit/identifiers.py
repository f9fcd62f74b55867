"""Identifiers that cannot be generated, told apart or read back."""

# N items

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from model.bundle.catalog import Catalog
from model.evaluation.audit.share import Share
from model.prompts.tokenizer import TextTokenizer


@dataclass(frozen=True)
class IdentifierAudit:
    """Shares of the catalog's items; examples are item ids."""

    colliding: Share  # tokens are another item's, too
    not_generated: Share  # no token at all, or one that is never generated
    not_round_trip: Share  # tokens decode to another text
    prefixes: Share  # tokens begin another item's: fine, where `</s>` may end a search inside the trie
    inactive: Share  # never returned by wish of the catalog
    unreachable: Share  # for one of these reasons but the wish, no search can return the item for sure


def audit_identifiers(catalog: Catalog, tokenizer: TextTokenizer) -> IdentifierAudit:
    sequences = [tuple(sequence) for sequence in tokenizer.identifiers(catalog.indices)]
    holders = Counter(sequences)
    inner = {sequence[:end] for sequence in sequences for end in range(1, len(sequence))}
    never = {tokenizer.unk_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.image_id}
    is_colliding = [holders[sequence] > 1 for sequence in sequences]
    is_not_generated = [not sequence or not never.isdisjoint(sequence) for sequence in sequences]
    texts = zip(sequences, catalog.indices, strict=True)

    def share(flags: list[bool]) -> Share:
        names = [item_id for item_id, flag in zip(catalog.item_ids, flags, strict=True) if flag]
        return Share.named(names, len(catalog))

    return IdentifierAudit(
        colliding=share(is_colliding),
        not_generated=share(is_not_generated),
        not_round_trip=share([tokenizer.decode(sequence) != index for sequence, index in texts]),
        prefixes=share([sequence in inner for sequence in sequences]),
        inactive=share([not is_active for is_active in catalog.is_active.tolist()]),
        unreachable=share([a or b for a, b in zip(is_colliding, is_not_generated, strict=True)]),
    )

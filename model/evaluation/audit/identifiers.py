"""Audit of identifiers: which cannot be generated, distinguished or decoded."""

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

    colliding: Share  # another item has the same tokens
    not_generated: Share  # no tokens, or one that is never generated
    not_round_trip: Share  # the tokens decode to a different text
    prefixes: Share  # the tokens begin another item's; allowed, because `</s>` can end an identifier inside the trie
    inactive: Share  # marked inactive in the catalog, so never returned
    unreachable: Share  # colliding or not generated, so no search returns the item reliably


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

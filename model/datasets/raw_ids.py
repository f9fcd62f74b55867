"""Warns where a model would learn to generate a shop's own ids, such as ASINs."""

from __future__ import annotations

from model.bundle.catalog import Catalog
from model.datasets.ids import is_number

_NUMBERS_PER_ITEM = 10  # larger numbers are codes, such as EANs, rather than counted


def raw_id_warning(catalog: Catalog) -> str | None:
    """A line if most identifiers are the items' own ids; None otherwise.

    Small numbers are fine: VIP5 counts items. Other ids have many tokens, which say nothing about the item.
    """
    largest = _NUMBERS_PER_ITEM * len(catalog)
    raw = [
        index
        for item_id, index in zip(catalog.item_ids, catalog.indices, strict=True)
        if index == item_id and not (is_number(index) and int(index) <= largest)
    ]
    if 2 * len(raw) <= len(catalog):
        return None
    return (
        f"warning: the identifiers that a model generates are the shop's own ids for {len(raw):,} of {len(catalog):,} "
        f"items, such as {raw[0]!r}; choose others with vip5 data index, for instance --method collaborative"
    )

"""Attributes of items from McAuley's metadata, and from JSON lines with the same names."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from model.bundle.catalog import Catalog
from model.datasets.text_lines import Source, numbered_records


@dataclass(frozen=True)
class ItemFacts:
    """Unknown facts are None, or an empty tuple."""

    title: str | None = None
    image: str | None = None
    category: str | None = None
    categories: tuple[str, ...] = ()
    brand: str | None = None
    price: float | None = None

    @classmethod
    def of_record(cls, record: Mapping[str, object], clean: Callable[[str], str] = html.unescape) -> ItemFacts:
        """From `title`, `categories` (a list, or a list of paths), `category`, `brand`, `price`, `image` or `imUrl`.

        `clean` is applied to every text. Without `category`, it is the second level of the first path, which is useful
        in filters, or the first level if there is no second.
        """

        def text_of(value: object) -> str | None:
            return one_line(clean(value)) if isinstance(value, str) else None

        named = [[text_of(name) for name in path] for path in _paths(record.get("categories"))]
        paths = [[name for name in path if name] for path in named]
        first = next((path for path in paths if path), [None])
        return cls(
            title=text_of(record.get("title")),
            image=text_of(record.get("image")) or text_of(record.get("imUrl")),
            category=text_of(record.get("category")) or first[:2][-1],
            categories=tuple(dict.fromkeys(name for path in paths for name in path)),
            brand=text_of(record.get("brand")),
            price=number_of(record.get("price")),
        )


UNKNOWN_FACTS = ItemFacts()


def read_metadata(
    source: Source, wanted: Collection[str], clean: Callable[[str], str] = html.unescape
) -> dict[str, ItemFacts]:
    """Facts of the wanted items by `asin`; of an item with two lines, the first counts."""
    facts: dict[str, ItemFacts] = {}
    for number, record in numbered_records(source):
        asin = record.get("asin")
        if not isinstance(asin, str) or not asin:
            source.fault("the line has no asin", number)
        elif asin in facts:
            source.fault("the item is listed twice", number)
        elif asin in wanted:
            facts[asin] = ItemFacts.of_record(record, clean)
    return facts


def _paths(categories: object) -> list[list[object]]:
    """Category paths; a single path may come without a list around it."""
    if not isinstance(categories, list | tuple):
        return []
    paths = [list(path) for path in categories if isinstance(path, list | tuple)]
    return paths or [list(categories)]


def one_line(text: str) -> str | None:
    """A text with single spaces, or None if it is empty."""
    return " ".join(text.split()) or None


def number_of(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def catalog_of(item_ids: Sequence[str], indices: Sequence[str], facts: Sequence[ItemFacts]) -> Catalog:
    """A catalog with a column for each kind of fact that at least one item has."""
    columns: dict[str, list[object]] = {
        "title": [fact.title for fact in facts],
        "image": [fact.image for fact in facts],
        "category": [fact.category for fact in facts],
        "categories": [list(fact.categories) or None for fact in facts],
        "brand": [fact.brand for fact in facts],
        "price": [fact.price for fact in facts],
    }
    known = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    rows = zip(item_ids, indices, *known.values(), strict=True)
    return Catalog.from_rows(dict(zip(("item_id", "index", *known), row, strict=True)) for row in rows)

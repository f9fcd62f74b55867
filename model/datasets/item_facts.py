"""Attributes of items from McAuley's metadata, and from tables and JSON lines with the same names."""

from __future__ import annotations

import ast
import html
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from model.bundle.catalog import Catalog
from model.bundle.joins import Names
from model.datasets.field_names import FieldNames
from model.datasets.records import numbered_records, require_good
from model.datasets.text_lines import Source
from model.datasets.values import Fields, UnreadableError, one_line, plain, text_of
from model.errors import DatasetError

FACT_NAMES = ("title", "categories", "category", "brand", "price", "image", "imUrl")
_OF_AMAZON = (
    *("description", "salesRank", "related", "also_buy", "also_view", "also_bought", "similar_item", "tech1", "tech2"),
    *("fit", "feature", "features", "rank", "main_cat", "date", "details", "details_url", "store", "bought_together"),
    *("parent_asin", "average_rating", "rating_number", "videos", "images", "subtitle", "author", "imageURLHighRes"),
)
"""Fields of McAuley's metadata of 2014, 2018 and 2023 that are not read."""


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
    def of_record(cls, fields: Fields, clean: Callable[[str], str] = html.unescape) -> ItemFacts:
        """From `title`, `categories` (a list, or a list of paths), `category`, `brand`, `price`, `image` or `imUrl`.

        `clean` is applied to every text. Without `category`, it is the second level of the first path, which is useful
        in filters, or the first level if there is no second. A list of categories may be in `category`, too.
        """
        has_path = _is_many(fields.record.get("category"))
        paths = _paths(fields, "category", clean) if has_path else []
        paths = _paths(fields, "categories", clean) or paths
        first = next((path for path in paths if path), [None])
        return cls(
            title=fields.text("title", clean=clean),
            image=_first_image(fields, clean),
            category=(None if has_path else fields.text("category", clean=clean)) or first[:2][-1],
            categories=tuple(dict.fromkeys(name for path in paths for name in path)),
            brand=fields.text("brand", clean=clean),
            price=fields.number("price"),
        )


UNKNOWN_FACTS = ItemFacts()


def read_metadata(
    source: Source, wanted: Collection[str], clean: Callable[[str], str] = html.unescape
) -> dict[str, ItemFacts]:
    """Facts of the wanted items by `asin`; of an item with two lines, the first counts.

    Raises DatasetError if no line is of a wanted item.
    """
    facts: dict[str, ItemFacts] = {}
    others: set[str] = set()
    spellings = Names(wanted)
    names = FieldNames(("asin", *FACT_NAMES), _OF_AMAZON, required=(("asin",),))
    for number, record in numbered_records(source, names):
        fields = Fields(record, source.faults, source.place(number))
        asin = plain(record.get("asin"))
        if asin is None:
            source.fault("the line has no asin", number)
        elif not isinstance(asin, str):
            fields.unread("asin", "a text, which keeps leading zeros")
        elif (item_id := spellings.find(asin)) is None:
            others.add(asin)
        elif item_id in facts:
            source.fault("the item is listed twice", number)
        else:
            facts[item_id] = ItemFacts.of_record(fields, clean)
    require_good(source, len(facts) + len(others), "line with an asin", names)
    if not facts:
        raise DatasetError(
            f"{source.path} has no line of an item that is wanted: it has asin {min(others)!r}, and the data "
            f"{min(wanted)!r}; check that both files are of one category"
        )
    return facts


def _is_many(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _first_image(fields: Fields, clean: Callable[[str], str]) -> str | None:
    """The first of several pictures is the main one."""
    for name in ("image", "imUrl"):
        value = fields.record.get(name)
        if _is_many(value) and len(value):  # type: ignore[arg-type]  # a list or an array
            fields = Fields({**fields.record, name: value[0]}, fields.faults, fields.place)  # type: ignore[index]
    return fields.text("image", "imUrl", clean=clean)


def _paths(fields: Fields, name: str, clean: Callable[[str], str]) -> list[list[str]]:
    """Category paths; a single path may come without a list around it, and lists as texts, as CSV has them."""
    value = fields.record.get(name)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _literal(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        if value is not None and value != "":
            fields.unread(name, "a list")
        return []
    paths = [list(path) for path in value if isinstance(path, list | tuple)]
    if paths and len(paths) < len(value):
        fields.unread(name, "a list of paths only")
    found: list[list[str]] = []
    for path in paths or [list(value)]:
        found.append([])
        for level in path:
            try:
                text = text_of(level)
            except UnreadableError:
                fields.unread(name, "a list of texts")
                continue
            cleaned = None if text is None else one_line(clean(text))
            if cleaned:
                found[-1].append(cleaned)
    return found


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text


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

"""Files that describe the items of sequences or orders: JSON lines, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.bundle.joins import Join, Names
from model.datasets.field_names import FieldNames
from model.datasets.ids import SHORTENED, id_text, is_shortened, require_own_numbers
from model.datasets.item_facts import FACT_NAMES, UNKNOWN_FACTS, ItemFacts
from model.datasets.records import numbered_records, require_good
from model.datasets.text_lines import Source
from model.datasets.values import Fields, plain
from model.errors import DatasetError

_KEYS = ("item_id", "item", "asin")


@dataclass(frozen=True)
class NamedItem:
    """An item's own id, if its file gives one, and its facts."""

    item_id: str | None
    facts: ItemFacts


UNNAMED = NamedItem(None, UNKNOWN_FACTS)


def read_named_items(
    source: Source, named: Sequence[str], of: str, numbers: Mapping[str, str] | None = None
) -> dict[str, NamedItem]:
    """Items by their names in the sequences or orders, `named`, and then those of no such name.

    `of` is what names of no partner lack, such as `no order`; `numbers` are names that were stored as numbers, with
    their places. Raises DatasetError if no line is of a known item, and for a number that may stand for another id.
    """
    described, stored_as_numbers = _read(source)
    require_own_numbers(stored_as_numbers, named)
    require_own_numbers(numbers or {}, described)
    found = _as_named(described, named)
    met = found.keys() & set(named)
    if not met:
        raise DatasetError(
            f"{source.path} has no line of a known item: it has {min(described)!r}, and the items are named like "
            f"{named[0]!r}; check that both use the same ids"
        )
    without = [item for item in named if item not in met]
    unmatched = sorted(found.keys() - met)
    source.faults.notice(str(Join(len(named), f"a line in {source.path.name}", "line", without, unmatched, of)))
    return found


def read_described_items(source: Source) -> dict[str, ItemFacts]:
    """Facts of all items of a file by their own ids, or by `item` where there is no other. Raises DatasetError."""
    described, _ = _read(source)
    return {item.item_id or name: item.facts for name, item in described.items()}


def _as_named(described: Mapping[str, NamedItem], named: Sequence[str]) -> dict[str, NamedItem]:
    """Items by the spelling of their names in the sequences."""
    names = Names(named)
    found = {item: described[item] for item in described if names.has(item)}
    for item, facts in described.items():
        spelling = names.find(item)
        found.setdefault(item if spelling is None or spelling in found else spelling, facts)
    return found


def _read(source: Source) -> tuple[dict[str, NamedItem], dict[str, str]]:
    """Items by their name in the sequences, which is `item`, or without it their id; and places of numeric names.

    The second maps names that the file stores as numbers to the first line that does.
    """
    items: dict[str, NamedItem] = {}
    numbers: dict[str, str] = {}
    names = FieldNames((*_KEYS, *FACT_NAMES), required=(_KEYS,))
    for number, record in numbered_records(source, names):
        id_value = next((record[key] for key in ("item_id", "asin") if id_text(record.get(key))), None)
        own = record.get("item")
        value = id_value if own is None or own == "" else own
        item = id_text(value)
        if item is None:
            unread = next((key for key in ("item", "item_id", "asin") if plain(record.get(key)) is not None), None)
            if unread is None:
                source.fault("the line has neither item nor item_id nor asin", number)
            else:
                Fields(record, source.faults, source.place(number)).unread(unread, "an id")
        elif is_shortened(item):
            source.fault(SHORTENED, number)
        elif item in items:
            source.fault("the item is listed twice", number)
        else:
            fields = Fields(record, source.faults, source.place(number))
            items[item] = NamedItem(id_text(id_value), ItemFacts.of_record(fields))
        if item is not None and not isinstance(value, str):
            numbers.setdefault(item, source.place(number))
    require_good(source, len(items), "line with item, item_id or asin", names)
    return items, numbers

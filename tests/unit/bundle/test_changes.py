"""Changes of a catalog add up, fit or are refused, and keep what they do not touch."""

from __future__ import annotations

import pytest

from model.bundle.catalog import Catalog
from model.bundle.changes import CatalogChanges, Cell, check_changes, with_added, with_values
from model.bundle.domain_files import DomainFiles
from model.bundle.identifiers import tokenise_identifiers
from model.bundle.layout import DomainSpec
from model.errors import CatalogError, InputError, UnknownItemError
from model.prompts.tokenizer import TextTokenizer
from tests.tiny import TINY_LAYOUT, tiny_catalog, tiny_tokenizer

TOKENIZER = TextTokenizer(tiny_tokenizer())
NEW: dict[str, Cell] = {"item_id": "new", "index": "500", "tags": ["a"]}


@pytest.fixture(scope="module")
def files() -> DomainFiles:
    catalog = tiny_catalog(30)
    identifiers = tokenise_identifiers(catalog.indices, catalog.item_ids, TOKENIZER, "catalog")
    return DomainFiles(
        spec=DomainSpec("toys", TINY_LAYOUT, ""),
        adapter={},
        catalog=catalog,
        identifiers=identifiers,
        users=None,
        features=None,
    )


def test_values_are_put_in_place_and_the_rest_is_kept(files: DomainFiles) -> None:
    catalog = files.catalog
    kept = catalog.item_ids, catalog.titles
    changes = CatalogChanges(active={"item-2": False, "item-10": True}, values={"item-3": {"price": 2, "tags": None}})
    changed = with_values(catalog, changes)
    assert changed.item_ids is kept[0]
    assert changed.titles is kept[1]
    assert changed.attributes(2) == catalog.attributes(2) | {"price": 2.0, "tags": None}
    different = [row for row in range(30) if changed.is_active[row] != catalog.is_active[row]]
    assert different == [1, 9]
    rows = [row for row in range(30) if row != 2]
    assert [changed.attributes(row) for row in rows] == [catalog.attributes(row) for row in rows]


def test_later_changes_hold() -> None:
    first = CatalogChanges(active={"a": False, "b": False}, values={"a": {"x": 1, "y": 1}}, added=(NEW,))
    second = CatalogChanges(active={"a": True}, values={"a": {"y": 2}, "b": {"x": 3}})
    both = first.then(second)
    assert both.active == {"a": True, "b": False}
    assert both.values == {"a": {"x": 1, "y": 2}, "b": {"x": 3}}
    assert both.added == (NEW,)
    assert first.values == {"a": {"x": 1, "y": 1}}


def test_an_added_item_comes_last_and_is_active(files: DomainFiles) -> None:
    grown = with_added(files, CatalogChanges(added=(NEW,)), TOKENIZER)
    assert (len(grown.catalog), grown.catalog.item_ids[-1], grown.catalog.is_active[-1]) == (31, "new", True)
    whole = tokenise_identifiers(grown.catalog.indices, grown.catalog.item_ids, TOKENIZER, "catalog")
    assert whole.flat.tolist() == grown.identifiers.flat.tolist()
    assert whole.offsets.tolist() == grown.identifiers.offsets.tolist()


def test_a_bundle_keeps_its_own_item_and_leaves_out_what_does_not_fit_it(files: DomainFiles) -> None:
    added = ({**NEW, "item_id": "item-5"}, {**NEW, "index": "7"}, {**NEW, "item_id": "fits"})
    grown = with_added(files, CatalogChanges(added=added), TOKENIZER)
    assert grown.catalog.item_ids[29:] == ("item-30", "fits")
    assert grown.catalog.indices[4] == "5"


def test_values_that_another_bundle_does_not_take_are_left_out(files: DomainFiles) -> None:
    changes = CatalogChanges(active={"gone": False}, values={"gone": {"price": 1}, "item-1": {"colour": "red"}})
    assert with_values(files.catalog, changes) is files.catalog
    other_type = CatalogChanges(values={"item-1": {"price": "cheap", "category": "games"}})
    changed = with_values(files.catalog, other_type)
    assert changed.attributes(0) == files.catalog.attributes(0) | {"category": "games"}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        (CatalogChanges(active={"x": True}), UnknownItemError, "'x' is not in the catalog"),
        (
            CatalogChanges(values={"item-1": {"price": "x"}}),
            InputError,
            "set.item-1: a value of price is not of the type double",
        ),
        (CatalogChanges(values={"item-1": {"active": True}}), InputError, "active cannot be set"),
        (CatalogChanges(added=({**NEW, "index": " "},)), CatalogError, "row 1 has no index"),
        (CatalogChanges(added=({**NEW, "colour": "red"},)), InputError, "no column 'colour'"),
        (CatalogChanges(added=({**NEW, "index": "5"},)), CatalogError, "belongs to another item"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_rule(
    files: DomainFiles, changes: CatalogChanges, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        check_changes(files, files.catalog, changes, TOKENIZER)


def test_what_is_added_may_be_changed_at_once(files: DomainFiles) -> None:
    changes = CatalogChanges(active={"new": False}, values={"new": {"price": 1}}, added=(NEW,))
    check_changes(files, files.catalog, changes, TOKENIZER)
    catalog: Catalog = with_values(with_added(files, changes, TOKENIZER).catalog, changes)
    assert (catalog.attributes(30)["price"], catalog.is_active[30]) == (1.0, False)

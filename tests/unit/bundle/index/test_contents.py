"""A domain from an index plans, filters, answers and changes as one that was built from its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle import catalog as catalog_module
from model.bundle import changes as changes_module
from model.bundle import column_texts
from model.bundle import users as users_module
from model.bundle.catalog import Catalog
from model.bundle.changes import CatalogChanges, check_changes, with_added, with_values
from model.bundle.domain_files import DomainFiles, DomainTables
from model.bundle.domain_tables import compile_index, tables_of
from model.bundle.hashed_ids import HashedIds
from model.bundle.users import Users
from model.errors import CatalogError
from model.planning.costs import sequential_cost
from model.planning.domain import ServedDomain
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineExplanation, OfflineSequential
from model.planning.rankings import plan_sequential
from tests.unit.bundle.index.tables import TOKENIZER, built, catalog_of, indexed, reopened

ITEM_IDS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda text: text.strip() != ""),
    min_size=1,
    max_size=20,
    unique=True,
)


@pytest.fixture(params=["small", "large"])
def size(request: pytest.FixtureRequest) -> Iterator[str]:
    """Small tables are held as Python's objects; here they are also read as large ones are, from their columns."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "large":
            for module in (catalog_module, changes_module, column_texts, users_module):
                patch.setattr(module, "MOST_HELD", 0)
        yield request.param


def both(tables: DomainTables) -> tuple[ServedDomain, ServedDomain]:
    """Built in memory, and from an index's descriptor."""
    index = reopened(indexed(tables))
    return served(tables), served(tables_of(tables.spec, index))


def served(tables: DomainTables) -> ServedDomain:
    return ServedDomain.of(0, tables, TOKENIZER, "a" * 64)


def files_of(tables: DomainTables) -> DomainFiles:
    return DomainFiles(
        spec=tables.spec,
        catalog=tables.catalog,
        identifiers=tables.identifiers,
        users=tables.users,
        compiled=tables.compiled,
        index=tables.index,
        adapter={},
        features=None,
    )


def described(domain: ServedDomain, wheres: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Everything that planning and answering read of a domain."""
    catalog, trie = domain.catalog, domain.trie
    rows = range(len(catalog))
    history = tuple(catalog.item_ids)[:3]
    plan: Any = plan_sequential(domain, OfflineSequential(history=history, user_id="u1"))
    text = plan_explanation(domain, OfflineExplanation(item_id=history[0], user_id="u1", feature="price"))
    return {
        "ids": list(catalog.item_ids),
        "indices": list(catalog.indices),
        "titles": [catalog.titles[row] for row in rows],
        "images": list(catalog.images),
        "active": catalog.is_active.tolist(),
        "attributes": [catalog.attributes(row) for row in rows],
        "rows": [catalog.row_of(item_id) for item_id in catalog.item_ids],
        "unknown": [catalog.row_of(item_id) for item_id in ("", "unknown", "\ud800", f"{catalog.item_ids[0]}\0")],
        "trie": [trie.token.tolist(), trie.first_child.tolist(), trie.leaf_lo.tolist(), trie.leaf_hi.tolist()],
        "leaves": [trie.rows_of_leaves.tolist(), domain.leaves_of_rows.tolist(), trie.fanout, trie.level_widths],
        "children": trie.max_children(3),
        "tokens": [domain.assembler.identifiers.row(row).tolist() for row in rows],
        "masks": [domain.eligible(where).is_member.tolist() for where in ({}, *wheres)],
        "prompts": [each.prompts[0].input_ids.tolist() for each in (plan, text)],
        "dtypes": [each.prompts[0].input_ids.dtype for each in (plan, text)],
        "cost": sequential_cost(domain, OfflineSequential(history=history)).num_tokens,
        "found": catalog.search(catalog.item_ids[-1], 0, 5),
        "users": None if domain.users is None else [domain.users.row_of(each) for each in ("u1", "u2", "unknown")],
        "degraded": plan.degraded,
    }


@settings(deadline=None, max_examples=30)
@given(ITEM_IDS, st.data())
def test_any_catalog_is_the_same_from_an_index(item_ids: list[str], data: st.DataObject) -> None:
    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(values, min_size=len(item_ids), max_size=len(item_ids)))

    texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    columns = {
        "title": column(texts),
        "image": column(texts),
        "active": column(st.booleans()),
        "price": column(st.none() | st.integers(-5, 5).map(float)),
        "tags": column(st.none() | st.lists(st.sampled_from("pqr"), max_size=3)),
        "new": column(st.none() | st.booleans()),
    }
    users = Users.from_rows([{"user_id": "u2", "index": "2"}, {"user_id": "u1", "index": "1", "name": item_ids[0]}])
    tables = built(catalog_of(item_ids, columns), data.draw(st.none() | st.just(users)))
    wheres: list[dict[str, Any]] = []
    if any(columns["tags"]) and any(columns["price"]):
        wheres = [{"price": (1.0, 2.0)}, {"tags": ("p",)}]
    is_large = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as patch:
        if is_large:
            for module in (catalog_module, changes_module, column_texts, users_module):
                patch.setattr(module, "MOST_HELD", 0)
        one, other = both(tables)
        assert described(one, wheres) == described(other, wheres)


def test_a_catalog_of_one_item(size: str) -> None:
    one, other = both(built(catalog_of(["only"])))
    assert described(one) == described(other)


def test_a_users_table_without_users(size: str) -> None:
    users = Users.from_table(Users.from_rows([{"user_id": "u", "index": "1"}]).table.slice(0, 0), "users")
    one, other = both(built(catalog_of(["only"]), users))
    assert described(one) == described(other)


def test_identifiers_that_begin_alike_and_others_that_go_on(size: str) -> None:
    indices = ["1", "12", "123", "1 2", "1 2 3", "21", "2 1"]
    rows = [{"item_id": f"i{row}", "index": index} for row, index in enumerate(indices)]
    one, other = both(built(Catalog.from_rows(rows)))
    assert described(one) == described(other)


def test_a_large_catalog_is_read_from_its_columns() -> None:
    """Beyond the limit in earnest: nothing is made for each item."""
    item_ids = [f"item {row}" for row in range(column_texts.MOST_HELD + 1)]
    catalog = catalog_of(item_ids)
    assert isinstance(catalog.item_ids, column_texts.ColumnTexts)
    ids = HashedIds.of(catalog.item_ids)
    mapped = Catalog(catalog.table, ids)
    for row in (0, 1, 77, len(item_ids) - 1):
        assert mapped.row_of(item_ids[row]) == catalog.row_of(item_ids[row]) == row
    assert mapped.row_of("item") is None
    assert catalog.item_ids[-1] == item_ids[-1]
    assert catalog.item_ids[5:9:2] == ("item 5", "item 7")
    assert list(catalog.item_ids) == item_ids
    assert [catalog.item_ids[row] for row in np.array([3, 5])] == ["item 3", "item 5"]
    for row in (len(item_ids), -len(item_ids) - 1):
        with pytest.raises(IndexError):
            catalog.item_ids[row]


def test_changes_are_the_same_over_an_index(size: str) -> None:
    tables = built(catalog_of([f"i{row}" for row in range(20)], {"price": [float(row) for row in range(20)]}))
    changes = CatalogChanges(
        active={"i3": False, "new": True},
        values={"i3": {"title": "third", "price": 7.5}, "i0": {"title": "first"}, "i19": {"image": "last.png"}},
        added=({"item_id": "new", "index": "2 1", "price": 1.5}, {"item_id": "newer", "index": "77"}),
    )
    changed = []
    for start in (tables, tables_of(tables.spec, reopened(indexed(tables)))):
        files = files_of(start)
        check_changes(files, files.catalog, changes, TOKENIZER)
        files = with_added(files, changes, TOKENIZER)
        domain = served(files)
        changed.append(described(domain.with_catalog(with_values(domain.catalog, changes)), [{"price": (7.5, 1.5)}]))
    assert changed[0] == changed[1]
    assert changed[0]["titles"][3] == "third"
    assert changed[0]["rows"] == list(range(22))


def test_an_added_item_shares_the_columns_that_it_is_added_to(size: str) -> None:
    tables = tables_of(built(catalog_of(["a", "b"])).spec, indexed(built(catalog_of(["a", "b"]))))
    files = with_added(files_of(tables), CatalogChanges(added=({"item_id": "c", "index": "9"},)), TOKENIZER)
    before, after = (each.catalog.table.column("title").chunks[0] for each in (tables, files))
    assert [each and each.address for each in before.buffers()] == [each and each.address for each in after.buffers()]
    assert files.index is None


@pytest.mark.parametrize("index", ["1", "12"])
def test_a_used_identifier_is_refused_over_an_index(index: str) -> None:
    catalog = catalog_of([f"i{row}" for row in range(12)])
    tables = tables_of(built(catalog).spec, indexed(built(catalog)))
    changes = CatalogChanges(added=({"item_id": "new", "index": index},))
    with pytest.raises(CatalogError, match="belongs to another item"):
        check_changes(files_of(tables), tables.catalog, changes, TOKENIZER)


def test_a_changed_catalog_can_be_compiled_for_other_processes(size: str) -> None:
    tables = built(catalog_of([f"i{row}" for row in range(8)]))
    grown = with_added(files_of(tables), CatalogChanges(added=({"item_id": "new", "index": "99"},)), TOKENIZER)
    index = reopened(compile_index(grown, TOKENIZER))
    assert described(served(grown)) == described(served(tables_of(tables.spec, index)))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=50), st.text())
def test_hashed_ids_find_each_id_and_no_other(ids: list[str], other: str) -> None:
    hashed = HashedIds.of(ids)
    assert [hashed.get(each) for each in ids] == list(range(len(ids)))
    assert hashed.get(other) == (ids.index(other) if other in ids else None)


def test_ids_of_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.bundle.hashed_ids._digest", lambda each: bytes(8))
    hashed = HashedIds.of(["a", "b", "c"])
    assert [hashed.get(each) for each in "abcd"] == [0, 1, 2, None]


def test_arrays_of_an_index_cannot_be_written() -> None:
    index = indexed(built(catalog_of(["a", "b"])))
    for array in (index.tables.compiled.trie.token, index.tables.compiled.tokens.identifiers.flat):
        assert isinstance(array, np.ndarray)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1

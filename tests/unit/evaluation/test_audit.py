from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from model.bundle.catalog import Catalog
from model.bundle.users import Users
from model.datasets.dataset import Dataset, Provenance, Review, Sequences, Split
from model.datasets.faults import Faults
from model.datasets.lines import LinesSource, read_lines
from model.evaluation.audit.identifiers import IdentifierAudit, audit_identifiers
from model.evaluation.audit.leaks import LeakAudit, audit_leaks
from model.evaluation.audit.report import audit_domain
from model.evaluation.audit.share import Share
from model.prompts.tokenizer import TextTokenizer
from tests.tiny import tiny_bundle, tiny_catalog, tiny_tokenizer
from tests.unit.bundle.refusals import refused


def dataset_of(histories: Sequence[Sequence[int]], catalog: Catalog) -> Dataset:
    """Users u0, u1, … with items by row."""
    return Dataset(
        provenance=Provenance("shop", "test"),
        catalog=catalog,
        users=Users.from_rows({"user_id": f"u{row}", "index": str(row)} for row in range(len(histories))),
        sequences=Sequences(
            np.array([item for history in histories for item in history], dtype=np.int64),
            np.cumsum([0, *map(len, histories)]).astype(np.int64),
        ),
    )


def numbered_catalog(num_items: int) -> Catalog:
    return Catalog.from_rows({"item_id": f"i{row}", "index": str(row)} for row in range(num_items))


def review(user: int, item: int, split: Split) -> Review:
    return Review(user, item, split, None, None, None, "text")


def leaks_of(dataset: Dataset) -> LeakAudit:
    return audit_leaks(dataset, np.arange(len(dataset.catalog)))


def identifiers_of(indices: Sequence[str]) -> IdentifierAudit:
    rows = [{"item_id": f"i{row}", "index": index} for row, index in enumerate(indices)]
    return audit_identifiers(Catalog.from_rows(rows), TextTokenizer(tiny_tokenizer()))


def test_targets_that_follow_the_largest_number_of_their_history_are_counted() -> None:
    histories = [[1, 5, 2, 6], [1, 2, 3], [7, 2, 3], [4, 5], [9], []]
    leaks = leaks_of(dataset_of(histories, numbered_catalog(10)))
    assert leaks.next_number_test == Share(3, 4, ("u0", "u1", "u3"))
    assert leaks.next_number_val == Share(1, 3, ("u1",))


def test_items_without_a_number_are_passed_over() -> None:
    dataset = dataset_of([[1, 2, 3], [2, 1, 0], [0, 1, 2]], numbered_catalog(4))
    leaks = audit_leaks(dataset, np.array([-1, 1, 2, 3]))
    assert leaks.next_number_test == Share(2, 2, ("u0", "u2"))
    assert audit_leaks(dataset, np.full(4, -1)).next_number_test is None


def test_targets_that_the_user_had_before_are_counted() -> None:
    leaks = leaks_of(dataset_of([[1, 2, 3, 1], [1, 2, 3, 3], [1, 2, 3, 4]], numbered_catalog(5)))
    assert leaks.in_own_training == Share(1, 3, ("u0",))
    assert leaks.in_own_history == Share(2, 3, ("u0", "u1"))


def test_targets_in_training_reviews_are_counted_by_pair() -> None:
    dataset = dataset_of([[1, 2, 3], [1, 2, 4]], numbered_catalog(5))
    reviews = (review(0, 3, "train"), review(1, 3, "train"), review(1, 4, "test"), review(0, 3, "test"))
    leaks = leaks_of(replace(dataset, reviews=reviews))
    assert leaks.in_training_reviews == Share(1, 2, ("u0",))
    assert leaks.test_reviews_in_training == Share(1, 2, ("u0",))


def test_negatives_that_the_user_had_are_counted() -> None:
    dataset = dataset_of([[1, 2, 3], [1, 2, 4]], numbered_catalog(6))
    negatives = {0: np.array([0, 3, 5]), 1: np.array([1, 4])}
    assert leaks_of(replace(dataset, negatives=negatives)).negatives_had == Share(3, 5, ("u0", "u1", "u1"))


def test_items_that_training_never_sees_are_counted() -> None:
    dataset = dataset_of([[0, 1, 2], [3, 0, 1], [4]], numbered_catalog(6))
    leaks = leaks_of(dataset)
    assert leaks.never_trained_items == Share(4, 6, ("i1", "i2", "i4"))
    assert leaks.never_trained_targets == Share(2, 2, ("u0", "u1"))
    reviewed = leaks_of(replace(dataset, reviews=(review(0, 1, "train"), review(0, 2, "val"))))
    assert reviewed.never_trained_items == Share(3, 6, ("i2", "i4", "i5"))
    assert reviewed.never_trained_targets == Share(1, 2, ("u0",))


def test_identifiers_with_the_same_tokens_collide() -> None:
    found = identifiers_of(["1", "25", " 1", "3"])
    assert found.colliding == Share(2, 4, ("i0", "i2"))
    assert found.unreachable == Share(2, 4, ("i0", "i2"))
    assert found.not_round_trip == Share(1, 4, ("i2",))


def test_identifiers_that_no_search_generates_are_counted() -> None:
    found = identifiers_of(["1", "\u00e9", "a <extra_id_0>", "7"])
    assert found.not_generated == Share(2, 4, ("i1", "i2"))
    assert found.unreachable == found.not_generated


def test_identifiers_that_begin_others_are_counted() -> None:
    assert identifiers_of(["12", "123", "1 2", "1", "45"]).prefixes == Share(2, 5, ("i0", "i3"))


def test_sound_identifiers_give_nothing_to_report() -> None:
    found = identifiers_of(["12 3 45", "12 3 46", "12 30 4"])
    assert {found.colliding, found.not_generated, found.not_round_trip, found.unreachable, found.inactive} == {
        Share(0, 3)
    }


def test_a_domain_is_audited_against_its_data(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    rows = [
        {"item_id": item_id, "index": "7" if item_id == "item-3" else index}
        for item_id, index in zip(tiny_catalog().item_ids[:50], tiny_catalog().indices[:50], strict=True)
    ]
    catalog = Catalog.from_rows([*rows, {"item_id": "gone", "index": "999"}])
    report = audit_domain(root, "toys", dataset_of([[0, 1, 2], [3, 4, 50], [7, 8, 9]], catalog))
    assert (report.domain, report.dataset, report.indexing) == ("toys", "shop", "sequential")
    assert report.coverage.only_in_bundle == Share(70, 120, ("item-51", "item-52", "item-53"))
    assert report.coverage.only_in_data == Share(1, 51, ("gone",))
    assert report.coverage.targets_not_in_bundle == Share(1, 3, ("gone",))
    assert report.coverage.other_index == Share(1, 50, ("item-3",))
    assert report.identifiers.inactive.count == 12
    # The bundle's numbers count, not the data's; u1's target has none.
    assert report.leaks.next_number_test == Share(2, 2, ("u0", "u2"))


def test_a_bundle_whose_identifiers_break_the_rules_is_audited_all_the_same(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    catalog = Catalog.from_rows({"item_id": f"i{row}", "index": str(row // 2)} for row in range(120))
    catalog.write(root / "domains/toys/catalog.parquet")
    _seal_anew(root, "domains/toys/catalog.parquet")
    assert audit_domain(root, "toys", dataset_of([[0, 1, 2]], catalog)).identifiers.colliding.count == 120


def test_a_domain_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path, ("toys", "games"))
    with refused("unknown_domain", "has no domain 'hats'; it has games, toys"):
        audit_domain(root, "hats", dataset_of([[0, 1, 2]], tiny_catalog()))


def test_real_sequences_with_sequential_numbers_give_the_next_item_away(shared: Path) -> None:
    path = shared / "data" / "amazon" / "beauty" / "sequential_data.txt.gz"
    with gzip.open(path, "rt") as file:
        lines = [[int(number) for number in line.split()][1:] for line in file]
    given_away = sum(items[-1] == max(items[:-1]) + 1 for items in lines)
    dataset = read_lines(LinesSource(path), "beauty", Faults())
    found = audit_leaks(dataset, np.array([int(index) for index in dataset.catalog.indices])).next_number_test
    assert found is not None
    assert (found.count, found.of) == (given_away, len(lines))
    assert given_away > len(lines) / 25


def _seal_anew(root: Path, name: str) -> None:
    """Write a file's true digest into the manifest, as a bundle made by other hands would have it."""
    from hashlib import sha256

    manifest = root / "manifest.json"
    document = json.loads(manifest.read_text())
    content = (root / name).read_bytes()
    document["files"][name] = {"sha256": sha256(content).hexdigest(), "size": len(content)}
    manifest.write_text(json.dumps(document))

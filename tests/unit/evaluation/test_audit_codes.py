"""What an audit says of identifiers that are made of codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.bundle.bundle import open_bundle
from model.bundle.catalog import Catalog
from model.bundle.codebook import Codebook
from model.bundle.layout import DomainSpec
from model.bundle.writer import BundleWriter
from model.evaluation.audit.codes import audit_codes
from model.evaluation.audit.report import audit_domain
from model.evaluation.audit.share import Share
from service.cli.audit_tables import as_document, print_report
from tests.tiny import TINY_LAYOUT, tiny_bundle
from tests.unit.evaluation.test_audit import dataset_of

BOOK = Codebook((2, 3), 2, 10, np.array([[0, 0], [0, 1]], dtype=np.int32))
CODES = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 2, 0), (0, 0, 1)]
INDICES = [BOOK.index_of(path[:-1], path[-1]) for path in CODES[:4]]
HISTORIES = [[0, 2, 0, 1], [2, 0, 2, 3], [0, 2, 1, 0]]


def catalog_of(indices: list[str]) -> Catalog:
    return Catalog.from_rows({"item_id": f"i{row}", "index": index} for row, index in enumerate(indices))


def test_paths_and_codes_are_counted() -> None:
    catalog = catalog_of([*INDICES, "something else"])
    found = audit_codes(catalog, BOOK, dataset_of(HISTORIES, catalog))
    assert found.not_of_codes == Share(1, 5, ("i4",))
    assert found.sharing_path == Share(2, 5, ("i0", "i1"))
    assert found.on_unseen_paths == Share(1, 5, ("i3",))
    assert found.targets_on_seen_paths == Share(2, 3, ("i1", "i0"))
    assert found.new_targets_on_seen_paths == Share(1, 2, ("i1",))  # i1 and i3 are in nobody's training
    assert found.used_codes == (Share(2, 2), Share(3, 3))
    assert found.full_paths == Share(1, 2)
    assert found.next_last_code == Share(1, 2)  # 0 then 1 on the path 0 0; and 1 then 0


def test_a_bundle_with_a_codebook_is_audited_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    root, catalog = tiny_bundle(tmp_path), catalog_of(INDICES)
    dataset = dataset_of(HISTORIES, catalog)
    assert audit_domain(root, "toys", dataset).codes is None
    adapter = open_bundle(root).domains["toys"].adapter
    with BundleWriter(root) as writer:
        writer.add_domain(DomainSpec("coded", TINY_LAYOUT, ""), adapter, catalog, codebook=BOOK)
        writer.seal()
    report = audit_domain(root, "coded", dataset)
    document = as_document(report)
    assert document["codes"]["used_codes"][1] == {"count": 3, "of": 3, "ratio": 1.0, "examples": []}  # type: ignore[index]
    print_report(report)
    shown = capsys.readouterr().out
    for text in ("codes in use, of level 2", "test target is on a trained path", "66.67%"):
        assert text in shown

"""Codes, their words, and the file that holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from model.bundle.bundle import open_bundle
from model.bundle.catalog import Catalog
from model.bundle.codebook import Codebook, Projection, check_codes, read_codebook, write_codebook
from model.bundle.layout import CODEBOOK, DomainSpec
from model.bundle.writer import BundleWriter
from model.errors import BundleError
from tests.tiny import TINY_LAYOUT, tiny_bundle
from tests.unit.bundle.refusals import refused

RANDOM = np.random.default_rng(0)
BOOK = Codebook(
    sizes=(3, 4),
    num_last=6,
    first_word=10,
    seen=np.array([[0, 1], [2, 0], [2, 3]], dtype=np.int32),
    levels=tuple(RANDOM.standard_normal((size, 2)).astype(np.float32) for size in (3, 4)),
    projection=Projection(RANDOM.standard_normal((8, 2)).astype(np.float32), np.array([0.5, -1], dtype=np.float32)),
)
SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=4)


@given(SIZES, st.integers(1, 300), st.integers(0, 500), st.data())
def test_an_identifier_has_the_codes_that_it_was_made_of(
    sizes: list[int], num_last: int, first: int, data: st.DataObject
) -> None:
    book = Codebook(tuple(sizes), num_last, first, np.zeros((1, len(sizes)), np.int32))
    codes = tuple(data.draw(st.integers(0, size - 1)) for size in (*sizes, num_last))
    index = book.index_of(codes[:-1], codes[-1])
    assert book.codes_of(index) == codes
    assert book.codes_of(f"{index} 1") is None
    assert all(first <= int(word) < first + book.num_words for word in index.split())


@pytest.mark.parametrize("index", ["10 13", "10 13 17 1", "13 13 17", "10 13 23", "9 13 17", "x 13 17", "1² 13 17", ""])
def test_other_texts_are_not_made_of_codes(index: str) -> None:
    assert BOOK.codes_of("10 13 17") == (0, 0, 0)
    assert BOOK.codes_of(index) is None
    with refused("invalid_bundle", f"the index {index!r} is not made of the codebook's words"):
        check_codes(BOOK, ["10 13 17", index], "toys")


def test_paths_are_ordered_by_the_distance_of_their_centres() -> None:
    for place in range(3):
        assert BOOK.nearest_seen(BOOK.centres[place])[0] == place
    assert sorted(BOOK.nearest_seen(np.zeros(2, np.float32)).tolist()) == [0, 1, 2]


def test_length_does_not_count() -> None:
    assert BOOK.projection is not None
    rows = RANDOM.standard_normal((5, 8))
    assert np.allclose(BOOK.projection.positions(rows), BOOK.projection.positions(3 * rows), atol=1e-5)
    assert np.array_equal(BOOK.projection.positions(np.zeros((1, 8))), BOOK.projection.offset[None])


@pytest.mark.parametrize("book", [BOOK, replace(BOOK, levels=(), projection=None)])
def test_a_file_gives_back_what_was_written(tmp_path: Path, book: Codebook) -> None:
    write_codebook(tmp_path / CODEBOOK, book)
    found = read_codebook(tmp_path / CODEBOOK)
    assert (found.sizes, found.num_last, found.first_word) == ((3, 4), 6, 10)
    assert np.array_equal(found.seen, book.seen)
    assert len(found.levels) == len(book.levels)
    assert (found.projection is None) == (book.projection is None)
    if book.projection is not None:
        assert np.array_equal(found.centres, book.centres)


METADATA = {"sizes": "3x4", "num_last": "6", "first_word": "10"}


def test_equal_codebooks_give_equal_bytes_that_the_library_reads(tmp_path: Path) -> None:
    contents = set()
    for number in range(8):
        write_codebook(tmp_path / str(number), BOOK)
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1
    assert load_file(tmp_path / "0").keys() == {"matrix", "offset", "seen", "level.0", "level.1"}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {"sizes": None}, "its metadata lacks 'sizes'"),
        ({}, {"sizes": "3xfour"}, "invalid literal"),
        ({}, {"num_last": "0"}, "num_last 0 must be 1 or more"),
        ({}, {"sizes": "3x4x5"}, "it has the tensors"),
        ({"seen": np.zeros((2, 1), np.int32)}, {}, "seen is int32 (2, 1), not int32 (2, 2)"),
        ({"seen": np.array([[0, 4]], np.int32)}, {}, "seen must have at least one path of codes 0 to 2, 3"),
        ({"seen": np.zeros((0, 2), np.int32)}, {}, "seen must have at least one path"),
        ({"offset": np.zeros(3, np.float32)}, {}, "offset is float32 (3,), not float32 (2,)"),
        ({"matrix": np.full((8, 2), np.nan, np.float32)}, {}, "matrix has values that are NaN or infinite"),
        ({"level.1": np.zeros((5, 2), np.float32)}, {}, "level.1 is float32 (5, 2), not float32 (4, 2)"),
        ({"more": np.zeros(2, np.float32)}, {}, "it has the tensors level.0, level.1, matrix, more"),
        ({"matrix": None}, {}, "it has the tensors"),
        ({"seen": np.zeros((1, 2), np.int64)}, {}, "the tensor seen is of type I64"),
    ],
)
def test_a_broken_file_is_refused_and_the_rule_named(
    tmp_path: Path, tensors: dict[str, np.ndarray | None], metadata: dict[str, str | None], message: str
) -> None:
    path = tmp_path / CODEBOOK
    write_codebook(path, BOOK)
    changed = {name: array for name, array in {**load_file(path), **tensors}.items() if array is not None}
    save_file(changed, path, {name: text for name, text in {**METADATA, **metadata}.items() if text is not None})
    with refused("invalid_bundle", message):
        read_codebook(path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CODEBOOK
    write_codebook(path, BOOK)
    path.write_bytes(path.read_bytes()[:-1])
    with refused("invalid_bundle", "is no codebook"):
        read_codebook(path)


def coded_catalog() -> Catalog:
    return Catalog.from_rows({"item_id": f"i{n}", "index": BOOK.index_of(BOOK.seen[n % 3], n // 3)} for n in range(9))


def test_a_codebook_is_part_of_a_domain_and_hashed(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    before = open_bundle(root)
    assert before.domains["toys"].codebook is None
    with BundleWriter(root) as writer:
        spec = DomainSpec("coded", TINY_LAYOUT, "")
        writer.add_domain(spec, before.domains["toys"].adapter, coded_catalog(), codebook=BOOK)
        writer.seal()
    found = open_bundle(root).domains["coded"].codebook
    assert found is not None
    assert np.array_equal(found.seen, BOOK.seen)
    path = root / "domains" / "coded" / CODEBOOK
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"codebook\.safetensors was modified"):
        open_bundle(root)


def test_a_codebook_that_does_not_fit_its_domain_is_not_written(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    adapter = open_bundle(root).domains["toys"].adapter
    spec = DomainSpec("coded", TINY_LAYOUT, "")
    assert BOOK.projection is not None
    wide = replace(BOOK, projection=Projection(np.zeros((9, 2), np.float32), BOOK.projection.offset))
    with BundleWriter(root) as writer:
        with refused("invalid_bundle", "reads embeddings of width 9, but the domain's are 8 wide"):
            writer.add_domain(spec, adapter, coded_catalog(), codebook=wide)
        with refused("invalid_bundle", "the index '1' is not made of the codebook's words"):
            writer.add_domain(spec, adapter, open_bundle(root).domains["toys"].catalog, codebook=BOOK)

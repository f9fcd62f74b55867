from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.bundle import parquet_footer, tables
from model.bundle.parquet_footer import FooterError, declared_bytes
from model.bundle.tables import parse_bundled_parquet
from model.errors import CatalogError
from tests.tiny import tiny_catalog
from tests.unit.bundle.refusals import refused


def content_of(path: Path, table: pa.Table, **options: object) -> bytes:
    pq.write_table(table, path, **options)  # type: ignore[arg-type]
    return path.read_bytes()


def footer_of(content: bytes) -> int:
    """Where the footer begins."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def with_footer(footer: bytes) -> bytes:
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


READ_ALL = """
import sys
from pathlib import Path
from model.bundle.tables import parse_bundled_parquet
from model.errors import CatalogError
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        parse_bundled_parquet(path.read_bytes(), path.name)
    except CatalogError:
        print(path.name)
"""


def test_a_damaged_footer_does_not_end_the_process(tmp_path: Path) -> None:
    """In a process of its own, which pyarrow ended by SIGABRT when it was asked for a column's sizes."""
    tiny_catalog(30).write(tmp_path / "catalog.parquet")
    content = (tmp_path / "catalog.parquet").read_bytes()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    chance = Random(1)
    for number in range(1500):
        place = chance.randrange(footer_of(content), len(content) - 8)
        changed = content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]
        (damaged / f"{number:04}.parquet").write_bytes(changed)
    done = subprocess.run([sys.executable, "-c", READ_ALL, damaged], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert 300 < len(done.stdout.splitlines()) < 1500


@pytest.mark.parametrize("options", [{}, {"row_group_size": 7}, {"use_dictionary": False}, {"compression": "none"}])
def test_the_declared_size_is_what_pyarrow_says(tmp_path: Path, options: dict[str, object]) -> None:
    table = pa.table({"item_id": [f"i{n}" for n in range(100)], "tags": [["new", "x"]] * 100, "b": [True, None] * 50})
    content = content_of(tmp_path / "t.parquet", table, **options)
    metadata = pq.ParquetFile(pa.BufferReader(content)).metadata
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    due = sum(max(chunk.total_uncompressed_size, 8 * chunk.num_values) for chunk in chunks)
    assert declared_bytes(memoryview(content)) == due


def test_a_table_that_declares_too_much_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(tmp_path / "t.parquet", pa.table({"a": ["x"] * 100}))
    monkeypatch.setattr(tables, "MOST_TABLE_BYTES", 799)
    monkeypatch.setattr(pq, "ParquetFile", None)
    with refused("invalid_catalog", "t.parquet unpacks to 800 bytes, the limit is 799"):
        parse_bundled_parquet(content, "t.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not end with PAR1"),
        (b"PAR1" + bytes(20) + b"PARE", "does not end with PAR1"),
        (b"PAR1" + (99).to_bytes(4, "little") + b"PAR1", "its footer would have 99 bytes, the file has 12"),
        (with_footer(b""), "cut off"),
        (with_footer(b"\x18\xff\xff\x03"), "cut off"),  # a text of 65,535 bytes
        (with_footer(b"\x16" + b"\xff" * 11), "an integer of more than 10 bytes"),
        (with_footer(b"\x1c" * 100), "nests more than 32 levels"),
        (with_footer(b"\x1e"), "unknown type 14"),
        (with_footer(b"\x19\xf1\xff\xff\xff\xff\x0f"), "more than 1000 values"),  # a list of 2^32 booleans
        (with_footer(b"\x1b\xff\xff\xff\xff\x0f\x11"), "more than 1000 values"),  # a map of as many
        (with_footer(b"\x49\x1c\x19\x1c\x3c\x56\x01\x00\x00\x00\x00"), "declares -1 values"),
    ],
)
def test_a_broken_footer_is_refused(content: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_footer, "MOST_VALUES", 1000)
    with pytest.raises(FooterError, match=message):
        declared_bytes(content)
    with pytest.raises(CatalogError, match=r"x\.parquet is not a readable Parquet file"):
        parse_bundled_parquet(content, "x.parquet")


def test_a_footer_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_footer, "MOST_FOOTER_BYTES", 10)
    with pytest.raises(FooterError, match="its footer has 11 bytes, the limit is 10"):
        declared_bytes(with_footer(bytes(11)))


def test_a_field_that_comes_twice_counts_at_its_largest() -> None:
    """Thrift takes the last one."""
    chunk = b"\x3c\x56\x0c\x05\x0a\x02\x00"  # ColumnMetaData: 6 values, then field 5 again: 1 value
    assert declared_bytes(with_footer(b"\x49\x1c\x19\x1c" + chunk + b"\x00\x00\x00")) == 48

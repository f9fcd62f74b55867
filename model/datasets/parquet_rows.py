"""Records of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from model.datasets.field_names import FieldNames
from model.datasets.text_lines import Source
from model.errors import DatasetError

_ROWS_PER_BATCH = 1 << 16


def parquet_records(source: Source, names: FieldNames) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Numbers of rows, counted from 1, and records by known names.

    Raises DatasetError for a file that is not Parquet, and as `FieldNames.places` does.
    """
    try:
        file = pq.ParquetFile(source.path)
        columns = file.schema_arrow.names
        places = names.places(columns, str(source.path))
        first, num_rows = 1, file.metadata.num_rows
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=[columns[place] for place in places.values()]):
            values = [_values(batch.column(columns[place])) for place in places.values()]
            for number, row in enumerate(zip(*values, strict=True), start=first):
                yield number, dict(zip(places, row, strict=True))
            first += batch.num_rows
            source.progress(f"reading {source.path.name}", first - 1, num_rows)
    except FileNotFoundError as error:
        raise DatasetError(f"{source.path} does not exist; check the path") from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{source.path} is not a readable Parquet file: {error}") from error


def _values(column: pa.Array) -> list[object]:  # type: ignore[type-arg]  # of any type
    """Python's values; nanoseconds are cut to microseconds, which its times have."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    try:
        found: list[object] = column.to_pylist()
    except (OverflowError, ValueError):  # of one value, such as a time after the year 9999
        return [_value(each) for each in column]
    return found


def _value(scalar: pa.Scalar) -> object:  # type: ignore[type-arg]  # of any type
    """Python's value, or Arrow's if Python has none, which readers count as of another kind than they expect."""
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return scalar

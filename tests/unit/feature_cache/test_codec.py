"""Embeddings come back exactly, and anything else is found out."""

from __future__ import annotations

import numpy as np
import pytest

from feature_cache.codec import Codec, DType
from feature_cache.errors import FeatureValueError

IDS = ["a", "bé", ""]


def test_every_float16_that_is_finite_comes_back_exactly() -> None:
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = numbers[np.isfinite(numbers)].reshape(-1, 8)
    codec = Codec("vitb32", "float16", 8)
    item_ids = [str(number) for number in range(len(halves))]

    rows = [codec.row_of(each, value) for each, value in zip(item_ids, codec.encode(item_ids, halves), strict=True)]

    decoded = codec.decode([row for row in rows if row is not None])
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded.view(np.uint32), halves.astype(np.float32).view(np.uint32))


def test_values_are_raw_little_endian_floats_and_a_checksum() -> None:
    (value,) = Codec("vitb32", "float16", 3).encode(["a"], np.array([[1, -2, 0.5]], dtype=np.float32))

    assert value[:-4] == np.array([1, -2, 0.5], dtype="<f2").tobytes()
    assert len(value) == 3 * 2 + 4


def test_float32_comes_back_exactly() -> None:
    features = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    codec = Codec("vitb32", "float32", 5)

    rows = [codec.row_of(each, value) for each, value in zip(IDS, codec.encode(IDS, features), strict=True)]

    np.testing.assert_array_equal(codec.decode([row for row in rows if row is not None]), features)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_none(dtype: DType, value: float) -> None:
    codec = Codec("vitb32", dtype, 2)
    good, bad = (np.array([1.0, number], dtype=dtype).tobytes() for number in (np.finfo(dtype).max, value))

    assert codec.finite([good, None, bad, good, bad]) == [good, None, None, good, None]
    assert codec.finite([None]) == [None]
    assert codec.finite([]) == []


@pytest.mark.parametrize(
    ("encoder", "dtype", "dim", "item_id"),
    [
        ("vitb16", "float16", 4, "a"),
        ("vitb32", "float32", 2, "a"),  # as many bytes
        ("vitb32", "float16", 5, "a"),
        ("vitb32", "float16", 4, "b"),
    ],
)
def test_a_value_of_another_encoder_type_width_or_item_is_none(
    encoder: str, dtype: DType, dim: int, item_id: str
) -> None:
    (value,) = Codec("vitb32", "float16", 4).encode(["a"], np.ones((1, 4)))

    assert Codec("vitb32", "float16", 4).row_of("a", value) is not None
    assert Codec(encoder, dtype, dim).row_of(item_id, value) is None


def test_a_value_that_was_changed_or_cut_off_is_none() -> None:
    codec = Codec("vitb32", "float16", 4)
    (value,) = codec.encode(["a"], np.ones((1, 4)))

    assert all(codec.row_of("a", value[:length]) is None for length in range(len(value)))
    assert codec.row_of("a", value + b"\0") is None
    for place in range(len(value)):
        changed = bytearray(value)
        changed[place] ^= 1
        assert codec.row_of("a", bytes(changed)) is None
    assert codec.row_of("a", ValueError("WRONGTYPE")) is None
    assert codec.row_of("a", None) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_what_is_not_finite_in_float16_is_refused_by_name(bad: float) -> None:
    features = np.ones((3, 4), dtype=np.float32)
    features[1, 2] = bad

    with pytest.raises(FeatureValueError, match="'bé' has values that are NaN, infinite or out of range for float16"):
        Codec("vitb32", "float16", 4).encode(IDS, features)


def test_another_width_is_refused() -> None:
    with pytest.raises(FeatureValueError, match=r"shape \[3, 4\] for 3 items; those by vitb32 have shape \[3, 5\]"):
        Codec("vitb32", "float16", 5).encode(IDS, np.ones((3, 4)))

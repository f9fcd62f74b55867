"""Weights that are no numbers are refused where a bundle is opened, with the file and the tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.bundle.bundle import open_bundle
from model.bundle.manifest import write_manifest
from model.bundle.tensors import check_finite, read_tensors, write_tensors
from model.errors import BundleError
from tests.tiny import tiny_bundle


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("file", ["backbone/model.safetensors", "domains/toys/adapter.safetensors"])
def test_a_bundle_with_a_weight_that_is_no_number_is_refused(tmp_path: Path, file: str, value: float) -> None:
    root = tiny_bundle(tmp_path, num_items=20)
    tensors = read_tensors(root / file)
    name = max(tensors)
    tensors[name].view(-1)[-1] = value
    write_tensors(root / file, tensors)
    write_manifest(root)

    with pytest.raises(BundleError) as error:
        open_bundle(root)
    assert f"{file}: {name} has values that are NaN or infinite" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float32, torch.float64])
def test_values_of_every_type_are_looked_at(dtype: torch.dtype) -> None:
    check_finite({"empty": torch.empty(0, dtype=dtype), "w": torch.tensor([-1.0, 2.0]).to(dtype)}, "it")
    for value in (torch.nan, torch.inf):
        with pytest.raises(BundleError, match="it: w has"):
            check_finite({"w": torch.tensor([1.0, value, 2.0]).to(dtype)}, "it")

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.errors import EngineError
from model.planning.runtime import load_runtime
from tests.tiny import tiny_bundle


def test_a_runtime_serves_every_domain_of_its_bundle(tmp_path: Path) -> None:
    runtime = load_runtime(tiny_bundle(tmp_path, ("toys", "garments"), num_items=20))
    assert set(runtime.domains) == set(runtime.feature_files) == {"toys", "garments"}
    assert {domain.slot for domain in runtime.domains.values()} == {0, 1}
    assert {domain.bundle_hash for domain in runtime.domains.values()} == {runtime.bundle_hash}


@pytest.mark.parametrize("device", ["nonsense", pytest.param("cuda", marks=pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a CUDA device here"
))])  # fmt: skip
def test_a_device_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path, device: str) -> None:
    with pytest.raises(EngineError, match=f"device '{device}' is not available .*; choose cpu, or install") as caught:
        load_runtime(tmp_path, device=device)
    assert caught.value.code == "engine_error"

"""Products in int8: nothing overflows, a row does not depend on the others, and only what may be is rounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.engine.onnx.executor import OnnxExecutor
from model.engine.onnx.models import ProjectionWriter, encoder_model, step_model
from model.engine.onnx.session import Session, to_tensor, to_value
from model.network.projection import Projection
from tests.tiny import TINY_LAYOUT
from tests.unit.engine.rankings import LAYOUTS, Served, random_plans

IN, OUT = 64, 24


def _product(weight: torch.Tensor, x: torch.Tensor, *, is_positive: bool = False) -> torch.Tensor:
    writer = ProjectionWriter("int8")
    projection = Projection(nn.Parameter(weight))
    writer.output("y", writer.project(writer.input("x"), "w", projection, is_positive=is_positive))
    return to_tensor(Session("product", writer, 1).run({"x": to_value(x)})["y"])


@pytest.mark.parametrize("is_positive", [False, True])
def test_products_of_the_largest_numbers_do_not_overflow(*, is_positive: bool) -> None:
    """All factors at their limits, in pairs of the same sign: 16 bits would not hold them if weights had 8."""
    weight = torch.full((OUT, IN), 0.7)
    weight[::2] *= -1
    x = torch.full((3, IN), 5.0)
    found = _product(weight, x, is_positive=is_positive)
    assert torch.allclose(found, x @ weight.t(), rtol=0.01)


@pytest.mark.parametrize("is_positive", [False, True])
def test_products_are_those_of_rounded_factors(*, is_positive: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, x = torch.randn(OUT, IN + 1, generator=generator), torch.randn(2, 5, IN + 1, generator=generator)
    x = x.abs() if is_positive else x
    x[0, 1] = 0
    found = _product(weight, x, is_positive=is_positive)
    assert torch.allclose(found, x @ weight.t(), atol=0.35)
    assert found[0, 1].abs().max() == 0
    (limit,) = {float((found - x @ weight.t()).abs().mean())}
    assert 0 < limit < 0.06


def test_a_row_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(4)
    weight, x = torch.randn(OUT, IN, generator=generator), torch.randn(6, IN, generator=generator)
    x[3] *= 1000
    together = _product(weight, x)
    for row in range(len(x)):
        assert torch.equal(_product(weight, x[row : row + 1])[0], together[row])


def test_the_encoder_s_layers_and_the_head_are_in_int8_and_nothing_else(tmp_path: Path) -> None:
    network = Served(tmp_path, {"toys": TINY_LAYOUT}, num_items=20).bundle.network()
    encoder, step = encoder_model(network, "int8").weights, step_model(network, "int8").weights
    kinds = {name: array.dtype for name, array in encoder.items() if array.ndim == 2}
    assert {kind for name, kind in kinds.items() if name.startswith("encoder.")} == {np.dtype(np.int8)}
    assert {kind for name, kind in kinds.items() if name.endswith(".memory")} == {np.dtype(np.float32)}
    assert [name for name, array in step.items() if array.dtype == np.int8] == ["head"]
    for model in (encoder_model(network, "float32"), step_model(network, "float32")):
        assert {array.dtype for array in model.weights.values()} == {np.dtype(np.float32)}


def test_answers_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    served = Served(tmp_path, LAYOUTS)
    engine = served.over(OnnxExecutor, precision="int8")
    plans = [replace(plan, certified=False) for plan in random_plans(served.domains, 12, seed=5)]
    together, _ = engine.search(plans)
    for plan, found in zip(plans, together, strict=True):
        (alone,), _ = engine.search([plan])
        shared = dict(zip(alone.leaves.tolist(), alone.scores.tolist(), strict=True))
        gaps = [abs(score - shared[leaf]) for leaf, score in zip(found.leaves.tolist(), found.scores, strict=True)]
        assert (
            max(gaps, default=0.0) < 1e-4
        )  # a sum of float32 that differs in its last bit may move a rounded number by a step

"""Properties that a search needs to be captured, as far as a CPU can test them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.engine.captured.buckets import Bucket
from model.engine.captured.engine import CapturedEngine
from model.engine.captured.program import SearchProgram
from model.engine.plans import RankingPlan
from tests.unit.engine.rankings import LAYOUTS, Served, random_plans

ASKS_THE_HOST = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::item",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave.Tensor",
    "aten::unique_dim",
    "aten::_unique2",
}
BRINGS_HOST_DATA = {"aten::lift_fresh", "aten::from_file", "aten::set_.source_Storage"}
INDEXES = {"aten::index.Tensor", "aten::index_put_", "aten::_index_put_impl_"}


class Watch(TorchDispatchMode):
    """Records all operators, and those that cannot be captured."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no annotation for it
        self.operators: list[str] = []
        self.wrong: list[str] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = func.name()
        self.operators.append(name)
        indexes_by_mask = name in INDEXES and any(_is_mask(index) for index in _indices(args[1]))
        if name in ASKS_THE_HOST | BRINGS_HOST_DATA or indexes_by_mask:
            self.wrong.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("device"), LAYOUTS)


@pytest.fixture
def engine(served: Served) -> CapturedEngine:
    return served.captured()


def test_a_search_never_asks_the_host_and_brings_nothing_from_it(served: Served, engine: CapturedEngine) -> None:
    watch, _ = _watched(engine, random_plans(served.domains, 5, seed=1))
    assert len(watch.operators) > 100
    assert watch.wrong == []


@pytest.mark.parametrize(
    "asks",
    [lambda scores: scores.sum().item(), lambda scores: torch.tensor([1.0, 2.0]), lambda scores: scores[scores > 0]],
    ids=["a number", "a list", "a mask"],
)
def test_the_watch_sees_what_a_capture_would_not_survive(asks: Callable[[Tensor], object]) -> None:
    with Watch() as watch:
        asks(torch.ones(3))
    assert watch.wrong


def test_the_same_operators_run_whatever_is_asked_for(served: Served, engine: CapturedEngine) -> None:
    """Otherwise a capture would be valid for one batch only."""
    first, bucket = _watched(engine, random_plans(served.domains, 7, seed=3))
    second, other = _watched(engine, random_plans(served.domains, 8, seed=8))
    assert bucket == other
    assert first.operators == second.operators


def test_the_first_step_runs_one_beam_a_row(
    served: Served, engine: CapturedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = engine._programs.packed.network
    grow, widths = network.grow, []

    def noted(tokens: Tensor, *rest: object) -> Tensor:
        widths.append(tokens.shape[1])
        return grow(tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(network, "grow", noted)
    _, bucket = _watched(engine, random_plans(served.domains, 2, seed=4))
    depth = max(domain.trie.depth for domain in served.domains)
    assert widths == [1, *[bucket.num_beams] * (depth - 1)]


def test_one_packed_copy_goes_in_and_one_comes_out(
    served: Served, engine: CapturedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = random_plans(served.domains, 4, seed=6)
    engine.search(plans)  # filters are on the device from now on
    monkeypatch.setattr(SearchProgram, "run", lambda _program: None)
    engine = served.captured()
    engine.search(plans)
    with Watch() as watch:
        engine.search(plans)
    into_device = [name for name in watch.operators if name == "aten::copy_"]
    assert len(into_device) == 2


def _watched(engine: CapturedEngine, plans: Sequence[RankingPlan]) -> tuple[Watch, Bucket]:
    with torch.inference_mode():
        program = engine._filled(plans).program
        program.buffers.send()
        with Watch() as watch:
            program.run()
    return watch, program.shape.bucket


def _indices(indices: object) -> Sequence[object]:
    return indices if isinstance(indices, list | tuple) else ()


def _is_mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}

"""A LoRA that PEFT saved is merged into its T5 as PEFT merges it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.bundle.bundle import open_bundle
from model.bundle.importers.lora import CONFIG, WEIGHTS
from model.bundle.importers.t5 import import_t5
from tests.commands import run
from tests.unit.bundle.refusals import refused
from tests.unit.bundle.test_import_t5 import saved, silent, t5

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # which PEFT asks
Q = "base_model.model.encoder.block.0.layer.0.SelfAttention.q"


def adapted(folder: Path, **options: Any) -> PeftModel:  # noqa: ANN401  # whatever LoraConfig takes
    """A LoRA of a tiny T5 with random weights, saved in `folder/lora` beside its T5 in `folder/t5`."""
    saved(folder / "t5", t5())
    config = LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": ["q", "v", "wo"], **options})
    model = cast("PeftModel", get_peft_model(t5(), config))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights)
    model.save_pretrained(str(folder / "lora"))
    return model


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"target_modules": "all-linear", "r": 3}])
def test_the_backbone_is_that_of_the_model_that_peft_merges(tmp_path: Path, options: dict[str, Any]) -> None:
    model = adapted(tmp_path, **options)
    merged = saved(tmp_path / "merged", cast("Any", model).merge_and_unload())
    import_t5(merged, tmp_path / "a", silent)
    plain = saved(tmp_path / "t5", t5())
    import_t5(plain, tmp_path / "b", silent, lora=tmp_path / "lora")
    import_t5(plain, tmp_path / "c", silent)
    ours, theirs, without = (open_bundle(tmp_path / name).backbone for name in "bac")
    assert ours.config == theirs.config
    assert ours.weights.keys() == theirs.weights.keys()
    for name, weights in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], weights, rtol=1e-5, atol=1e-5)
    changed = [name for name, weights in without.weights.items() if not torch.equal(weights, ours.weights[name])]
    assert len(changed) == len([name for name in load_file(tmp_path / "lora" / WEIGHTS) if "lora_A" in name])


def test_the_command_merges_a_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapted(tmp_path)
    assert run("import", "t5", "--model", tmp_path / "t5", "--lora", tmp_path / "lora", "--out", tmp_path / "b") == 0
    digest = import_t5(tmp_path / "t5", tmp_path / "c", silent, lora=tmp_path / "lora")
    assert capsys.readouterr().out == f"imported t5 into {tmp_path / 'b'}, bundle {digest}\n"


Weights = dict[str, Tensor]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {**c, "peft_type": "IA3"}, "has peft_type 'IA3'; it must be LORA"),
        (
            lambda c: {**c, "use_dora": True},
            "has use_dora True, which is no plain LoRA; merge it with merge_and_unload",
        ),
        (lambda c: {**c, "alpha_pattern": {"q": 4}}, "has alpha_pattern {'q': 4}, which is no plain LoRA"),
        (lambda c: {**c, "r": None}, "has r None and lora_alpha 6; both must be numbers"),
    ],
)
def test_configurations_of_another_form_are_refused(
    tmp_path: Path, change: Callable[[dict[str, object]], dict[str, object]], message: str
) -> None:
    adapted(tmp_path)
    path = tmp_path / "lora" / CONFIG
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with refused("invalid_bundle", message):
        import_t5(tmp_path / "t5", tmp_path / "bundle", silent, lora=tmp_path / "lora")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {**w, "base_model.model.shared.lora_embedding_A": torch.ones(2, 2)},
            "shared.lora_embedding_A, which",
        ),
        (
            lambda w: {n: t for n, t in w.items() if n != f"{Q}.lora_B.weight"},
            "has only one of the two factors of encoder",
        ),
        (lambda w: {**w, f"{Q}.lora_A.weight": torch.ones(2, 5)}, "whose product is not [12, 16], the T5's"),
        (
            lambda w: {**w, f"{Q}x.lora_A.weight": torch.ones(2, 5)},
            "the T5 has no encoder.block.0.layer.0.SelfAttention.qx",
        ),
        (lambda w: {**w, f"{Q}.lora_A.weight": torch.full((2, 16), torch.nan)}, "NaN"),
        (lambda w: {}, "has no weights"),
    ],
)
def test_weights_that_are_not_products_of_this_t5_are_refused(
    tmp_path: Path, change: Callable[[Weights], Weights], message: str
) -> None:
    adapted(tmp_path)
    path = tmp_path / "lora" / WEIGHTS
    save_file(change(load_file(path)), path)
    with refused("invalid_bundle", message):
        import_t5(tmp_path / "t5", tmp_path / "bundle", silent, lora=tmp_path / "lora")

"""All positions of a history in one pass: the same loss as one prompt for each, and a bundle that serves alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.engine.plans import RankingPlan
from model.errors import TrainingError
from model.network.one_pass import is_causal
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import load_runtime
from model.prompts.assembly import PromptValues
from model.training.batches import Collator, Example
from model.training.config import read_run
from model.training.material import Material, material_of
from model.training.preparation import Preparation, prepare
from model.training.sampling import Sample
from model.training.tuned_model import TunedModel
from model.training.tuning import tune
from model.training.windows import Window, WindowBatch, WindowBatches
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run

TEMPLATE = """
[[templates]]
name = "items"
text = "{history}"
separator = ","
most_items = 4
"""
ONE_PASS = (
    FROM_SCRATCH.replace(
        "[prompts]",
        '[prompts]\ntasks = { sequential = 1 }\ntargets = "in_one_pass"\ntemplates = ["items"]\n'
        'default_sequential = "items"',
    )
    .replace("batch_size = 4", 'batch_tokens = 60\nloss = "per_sample"\ndropout = 0.0')
    .replace("steps = 6", "epochs = 1")
    + TEMPLATE
)


def prepared(folder: Path, text: str = ONE_PASS) -> Preparation:
    preparation = prepare(read_run(write_run(folder, text)))
    with torch.no_grad():  # adapters and images would do nothing
        for parameter in preparation.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        table = preparation.network.encoder.positions.table
        table[len(table) // 2 :] = -10_000
    return preparation


def loss_in_one_pass(material: Material, batch: WindowBatch) -> Tensor:
    loss: Tensor = material.model.eval()(**material.collator([batch]))["loss"]
    return loss


def one_by_one(preparation: Preparation, batches: WindowBatches, number: int) -> Tensor:
    """The mean loss of the batch's targets, each with a prompt of its own."""
    (domain,) = preparation.domains
    sampler = domain.sampler
    template = sampler.assembler.templates["items"]
    collate = Collator.of(preparation.network)
    model = TunedModel(preparation.network, preparation.run.file)
    losses = []
    for window in windows_of(batches, number):
        for place in range(window.first, len(window.items)):
            history = tuple(window.items[:place].tolist())
            prompt = sampler.assembler.assemble(template, PromptValues(history=history))
            target = (*sampler.assembler.identifiers.row(int(window.items[place])).tolist(), 1)
            assert domain.images is not None
            features = domain.images.read(prompt.image_items, None)
            losses.append(
                model(**collate([Example(0, Sample("sequential", "items", prompt, target), features)]))["loss"]
            )
    return torch.stack(losses).mean()


def windows_of(batches: WindowBatches, number: int) -> list[Window]:
    domain, numbers = batches._epoch(0)[number]
    return [batches._domains[domain].windows[each] for each in numbers]


@pytest.mark.parametrize("separator", [",", ""])
def test_one_pass_has_the_loss_of_one_prompt_for_each_target(tmp_path: Path, separator: str) -> None:
    preparation = prepared(tmp_path, ONE_PASS.replace('separator = ","', f'separator = "{separator}"'))
    material = material_of(preparation)
    batches = material.batches("train", 100)
    assert isinstance(batches, WindowBatches)
    for number in range(batches.batches_per_epoch):
        together = loss_in_one_pass(material, batches[number])
        alone = one_by_one(preparation, batches, number)
        np.testing.assert_allclose(together.item(), alone.item(), rtol=2e-5)


def test_one_pass_has_the_gradients_of_one_prompt_for_each_target(tmp_path: Path) -> None:
    preparation = prepared(tmp_path)
    material = material_of(preparation)
    batches = material.batches("train", 100)
    assert isinstance(batches, WindowBatches)
    gradients = []
    for loss in (loss_in_one_pass(material, batches[0]), one_by_one(preparation, batches, 0)):
        preparation.network.zero_grad()
        loss.backward()
        gradients.append({name: each.grad for name, each in preparation.network.named_parameters()})
    for name, expected in gradients[1].items():
        if expected is not None:
            found = gradients[0][name]
            assert found is not None, name
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6, msg=name)


def test_training_asks_every_eighth_target_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    material = material_of(prepared(tmp_path))
    batches = material.batches("train", 100)
    assert isinstance(batches, WindowBatches)
    every = [material.collator([batches[number]]) for number in range(batches.batches_per_epoch)]
    inputs = max(every, key=lambda each: int((each["targets"][:, :, 0] >= 0).sum()))
    network = material.model.network
    asked: list[Tensor] = []
    whole = network.logits

    def logits(states: Tensor) -> Tensor:
        asked.append(states)
        return whole(states)

    monkeypatch.setattr(network, "logits", logits)
    num_targets = int((inputs["targets"][:, :, 0] >= 0).sum())
    length = inputs["targets"].shape[2]
    trained = material.model.train()(**inputs)["loss"]
    said, ends = asked
    assert said.shape[:2] == (num_targets, length - 1)
    assert ends.shape[:2] == (-(-num_targets // 8), 1)
    assert num_targets > 8
    asked.clear()
    validated = material.model.eval()(**inputs)["loss"]
    assert asked[1].shape[:2] == (num_targets, 1)
    assert 0 < abs(trained.item() - validated.item()) < 0.2 * validated.item()


def test_an_epoch_has_every_training_position_once_as_a_target(tmp_path: Path) -> None:
    preparation = prepare(read_run(write_run(tmp_path, ONE_PASS)))
    batches = material_of(preparation).batches("train", 100)
    assert isinstance(batches, WindowBatches)
    sequences = preparation.domains[0].dataset.sequences
    expected = sum(len(sequences.seen(user, "train")) - 1 for user in sequences.users("train").tolist())
    targets = [batches[number].arrays["targets"] for number in range(batches.batches_per_epoch)]
    assert sum(int((each[:, :, 0] != -100).sum()) for each in targets) == expected
    tokens = [batches[number].arrays["input_ids"].size for number in range(batches.batches_per_epoch)]
    assert max(tokens) <= 60


def test_the_result_serves_by_its_own_template_and_reads_causally(tmp_path: Path) -> None:
    text = ONE_PASS.replace("validation_batches = 2", "validation_batches = 2\nvalidation_users = 10")
    result = tune(read_run(write_run(tmp_path, text)))
    assert set(result.measures.validation) == {"hr@5", "hr@10", "ndcg@5", "ndcg@10"}
    assert (tmp_path / "work/run/curves.png").stat().st_size > 1000
    runtime = load_runtime(tmp_path / "bundle")
    domain = runtime.domains["toys"]
    assert domain.spec.prompts.sequential == "items"
    history = tuple(f"item-{number}" for number in range(1, 10))
    plan = plan_sequential(domain, OfflineSequential(history=history))
    assert isinstance(plan, RankingPlan)
    read = [domain.catalog.item_ids[row] for row in plan.prompts[0].image_items]
    assert read == list(history[-4:])
    tuned = prepare(read_run(write_run(tmp_path, ADAPTERS_IN_ONE_PASS, name="adapters"))).network
    assert is_causal(tuned)


ADAPTERS_IN_ONE_PASS = (
    ONE_PASS.replace('tune = "from_scratch"', 'tune = "adapters"\nstart = "bundle"')
    .replace('out = "bundle"', 'out = "other"')
    .replace("reduction_factor = 0", "reduction_factor = 4")
)
ADAPTERS_IN_ONE_PASS = (
    ADAPTERS_IN_ONE_PASS[: ADAPTERS_IN_ONE_PASS.index("[backbone]")]
    + ADAPTERS_IN_ONE_PASS[ADAPTERS_IN_ONE_PASS.index("[adapters]") :]
)


def test_a_backbone_that_reads_both_ways_is_refused(tmp_path: Path) -> None:
    tune(read_run(write_run(tmp_path, FROM_SCRATCH)))
    with pytest.raises(TrainingError, match=r"adapters\.toml:\d+: .* reads both ways and stays as it is; set tune"):
        prepare(read_run(write_run(tmp_path, ADAPTERS_IN_ONE_PASS, name="adapters")))

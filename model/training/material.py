"""What a run trains on: the model with its loss, and batches of samples or of windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from shutil import which
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from model.errors import TrainingError
from model.prompts.templates import Template
from model.training.batches import Collator, Examples
from model.training.preparation import Preparation, TunedDomain
from model.training.sampling import SampledSplit
from model.training.tuned_model import OnePassModel, TunedModel
from model.training.windows import WindowBatches, WindowCollator, WindowedDomain

_COMPILERS = ("c++", "g++", "clang++")
"""What torch.compile needs one of."""


@dataclass(frozen=True, eq=False)
class Material:
    """`batches` makes so many batches of a split, of which the Trainer takes `batch_size` members at once."""

    model: TunedModel
    collator: Callable[[Any], dict[str, Any]]
    batches: Callable[[SampledSplit, int], TorchDataset[Any]]
    batch_size: int
    batches_per_epoch: int | None = None


def material_of(preparation: Preparation) -> Material:
    """Raises TrainingError for data that has no samples, or whose positions cannot share a pass."""
    if preparation.run.file.prompts.targets == "in_one_pass":
        return _windows(preparation)
    file = preparation.run.file

    def batches(split: SampledSplit, num_batches: int) -> Examples:
        return Examples(
            [domain.sampler for domain in preparation.domains],
            [domain.images for domain in preparation.domains],
            split=split,
            seed=file.seed,
            batch_size=file.optimiser.batch_size,
            num_batches=num_batches,
        )

    model = TunedModel(preparation.network, file)
    return Material(model, Collator.of(preparation.network), batches, file.optimiser.batch_size)


def _windows(preparation: Preparation) -> Material:
    file, network = preparation.run.file, preparation.network
    if file.optimiser.compile and not any(map(which, _COMPILERS)):
        raise TrainingError(
            f"{preparation.run.places.of('optimiser', 'compile')}: optimiser.compile is true, but none of "
            f"{', '.join(_COMPILERS)} is installed; install one, or remove compile"
        )
    by_name = {template.template_id: template for template in file.own_templates}
    template = by_name[file.prompts.default_sequential]

    def batches(split: SampledSplit, num_batches: int) -> WindowBatches:
        return WindowBatches(
            [_windowed(domain, template, split) for domain in preparation.domains],
            split=split,
            seed=file.seed,
            batch_tokens=file.optimiser.batch_tokens,
            num_batches=num_batches,
        )

    adapters = tuple(network.adapter_row(slot, template.task) for slot in range(len(network.layouts)))
    trained = [_windowed(domain, template, "train") for domain in preparation.domains]
    return Material(
        model=OnePassModel(network, file, [domain.table.item for domain in trained]),
        collator=WindowCollator(adapters, network.feature_dim),
        batches=batches,
        batch_size=1,
        batches_per_epoch=batches("train", 1).batches_per_epoch,
    )


def _windowed(domain: TunedDomain, template: Template, split: SampledSplit) -> WindowedDomain:
    return WindowedDomain.of(domain.sampler, domain.images, template, domain.spec.layout.visual_tokens, split)

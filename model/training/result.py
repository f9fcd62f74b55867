"""Writing a trained network into a bundle."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version

import msgspec
import torch

from model.bundle.writer import BundleWriter
from model.errors import TrainingError
from model.network.network import Vip5Network
from model.network.weights import backbone_weights, domain_weights
from model.training.measures import Measures
from model.training.preparation import Preparation, require_free
from model.training.tuned_model import ParameterCounts

_PACKAGES = ("torch", "transformers", "accelerate", "vip5-serve")


def write_result(
    preparation: Preparation, network: Vip5Network, counts: ParameterCounts, measures: Measures, *, replace: bool
) -> str:
    """Write the run's domains, and the backbone if it was trained or is new; returns the bundle's hash.

    Raises TrainingError if the training has diverged, and ExistsError for what somebody else has written since the run
    began, unless `replace`.
    """
    run, start = preparation.run, preparation.start
    require_free(run, replace=replace)
    _require_finite(network)
    keeps_backbone = start is not None and not run.tunes_backbone
    weights = start.backbone.weights if start is not None and keeps_backbone else backbone_weights(network)
    record = {
        "run": msgspec.to_builtins(run.file),
        "parameters": {**asdict(counts), "share": counts.share},
        "measures": asdict(measures),
        "packages": {name: version(name) for name in _PACKAGES},
    }
    with BundleWriter(run.out, keeps_domains=keeps_backbone) as writer:
        writer.share_backbone(preparation.config, weights, preparation.tokenizer)
        for slot, domain in enumerate(preparation.domains):
            writer.add_domain(
                domain.spec,
                domain_weights(network, slot),
                domain.dataset.counted_catalog,
                users=domain.dataset.users,
                features=domain.features,
                codebook=domain.dataset.codebook,
                training_record={**record, "dataset": asdict(domain.dataset.provenance)},
            )
        return writer.seal()


def _require_finite(network: Vip5Network) -> None:
    """Raise TrainingError for weights that are NaN or infinite, which would answer nothing."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(
                f"the training diverged: {name} has values that are NaN or infinite; train with a smaller "
                "optimiser.learning_rate and --restart"
            )

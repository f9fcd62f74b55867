"""Writing a trained network into a bundle."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version

import msgspec

from model.bundle.writer import BundleWriter
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

    Raises ExistsError for what somebody else has written since the run began, unless `replace`.
    """
    run, start = preparation.run, preparation.start
    require_free(run, replace=replace)
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
                domain.dataset.catalog,
                users=domain.dataset.users,
                features=domain.features,
                training_record={**record, "dataset": asdict(domain.dataset.provenance)},
            )
        return writer.seal()

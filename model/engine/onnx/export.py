"""Exports a bundle as ONNX models with the inputs of its domains, for other runtimes and for inspection."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from model.bundle.bundle import open_bundle
from model.engine.onnx.domains import DomainInputBank
from model.engine.onnx.models import Precision, encoder_model, step_model
from model.engine.onnx.session import to_tensor
from model.errors import ExistsError
from model.network.banks import RowIndex
from model.network.config import TASKS


def export_onnx(root: Path, out: Path, precision: Precision = "float32") -> None:
    """Write `encoder.onnx`, `step.onnx`, their weights, and `domains/<name>.<task>.safetensors` into a new folder.

    The tensors of a domain are named like the models' inputs. Embedding tables and the visual mapper are not exported:
    the models take embedded prompts. Raises BundleError kinds for an invalid bundle and for an existing folder.
    """
    if out.exists():
        raise ExistsError(f"{out} exists; choose a new folder or remove it")
    bundle = open_bundle(root)
    network = bundle.network()
    (out / "domains").mkdir(parents=True)
    encoder_model(network, precision).save(out / "encoder.onnx")
    step_model(network, precision).save(out / "step.onnx")
    bank = DomainInputBank(network)
    for slot, name in enumerate(sorted(bundle.domains)):
        for task in TASKS:
            inputs = bank.of(RowIndex(domain=slot, adapter=network.adapter_row(slot, task)))
            values = {**inputs.encoder, **inputs.step}
            tensors: dict[str, torch.Tensor] = {key: to_tensor(value).clone() for key, value in values.items()}
            save_file(tensors, out / "domains" / f"{name}.{task}.safetensors")

"""Exports a bundle as ONNX models with the inputs of its domains, for other runtimes and for inspection."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from model.bundle.bundle import Bundle, open_bundle
from model.bundle.folders import is_free, publish, temporary_sibling
from model.bundle.tensors import write_tensors
from model.engine.onnx.domains import DomainInputBank
from model.engine.onnx.models import Precision, encoder_model, step_model
from model.engine.onnx.session import to_tensor
from model.errors import ExistsError
from model.network.banks import RowIndex
from model.network.config import TASKS

_ENCODER = "encoder.onnx"


def export_onnx(root: Path, out: Path, precision: Precision = "float32", *, replace: bool = False) -> None:
    """Write `encoder.onnx`, `step.onnx`, their weights, and `domains/<name>.<task>.safetensors` into a new folder.

    The folder is complete or does not exist. An export that is there already is replaced if `replace` is set.

    The tensors of a domain are named like the models' inputs. Embedding tables and the visual mapper are not exported:
    the models take embedded prompts. Raises BundleError kinds for an invalid bundle and for an existing folder.
    """
    if not is_free(out) and not replace:
        raise ExistsError(f"{out} exists; choose a new folder or remove it")
    if not is_free(out) and not (out / _ENCODER).is_file():
        raise ExistsError(f"{out} holds something other than an export; choose another folder")
    bundle = open_bundle(root)
    folder = temporary_sibling(out)
    try:
        _write(bundle, folder, precision)
        publish(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(bundle: Bundle, folder: Path, precision: Precision) -> None:
    network = bundle.network()
    encoder_model(network, precision).save(folder / _ENCODER)
    step_model(network, precision).save(folder / "step.onnx")
    (folder / "domains").mkdir()
    bank = DomainInputBank(network)
    for slot, name in enumerate(sorted(bundle.domains)):
        for task in TASKS:
            inputs = bank.of(RowIndex(domain=slot, adapter=network.adapter_row(slot, task)))
            values = {**inputs.encoder, **inputs.step}
            tensors: dict[str, torch.Tensor] = {key: to_tensor(value).clone() for key, value in values.items()}
            write_tensors(folder / "domains" / f"{name}.{task}.safetensors", tensors)

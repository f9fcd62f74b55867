"""Importing a T5 of Hugging Face as the backbone of a new bundle, to be tuned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from model.bundle.backbone import check_backbone
from model.bundle.documents import read_json_object
from model.bundle.importers.checkpoint import drop_aliases
from model.bundle.importers.config import ConfigFile, backbone_config, ties_head
from model.bundle.importers.lora import with_lora
from model.bundle.importers.tensor_names import with_shared, without_wrappers
from model.bundle.importers.vocabulary import check_size, read_tokenizer
from model.bundle.shapes import HEAD, SHARED
from model.bundle.tensors import check_finite, read_tensors
from model.bundle.writer import BundleWriter
from model.errors import BundleError, ExistsError
from model.progress import Progress

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def import_t5(folder: Path, out: Path, progress: Progress, *, replace: bool = False, lora: Path | None = None) -> str:
    """Create a bundle with a T5's backbone, including layer norms; returns its hash.

    `lora` is a folder in which PEFT saved a LoRA of this T5, which is merged into it.

    A bundle that is there already is replaced as a whole if `replace` is set. Raises ExistsError otherwise.

    `folder` has config.json, tokenizer.json and model.safetensors, which may be sharded. Raises BundleError or a
    subclass for files that break a rule.
    """
    config = ConfigFile(folder / "config.json")
    progress("reading the model", 0, None)
    is_scaled = config.get("scale_decoder_outputs", bool, ties_head(config))
    tensors = without_wrappers(_read_weights(folder), folder.name)
    tensors = with_shared(tensors, tied_head=is_scaled, where=folder.name)
    check_finite(tensors, folder.name)
    if lora is not None:
        tensors = with_lora(tensors, lora)
    backbone = dataclasses.replace(backbone_config(config, tensors), tie_word_embeddings=is_scaled)
    tensors = _with_head(tensors, is_scaled=is_scaled, where=folder.name)
    check_backbone(backbone, tensors, folder.name)
    tokenizer = read_tokenizer(folder)
    check_size(tokenizer, backbone.vocab_size, folder.name)
    progress("writing the bundle", 0, None)
    with BundleWriter(out, keeps_domains=not replace) as writer:
        if writer.backbone is not None:
            raise ExistsError(f"{out.name} is a bundle with a backbone already; choose another folder")
        writer.share_backbone(backbone, tensors, tokenizer)
        return writer.seal()


def _with_head(tensors: dict[str, torch.Tensor], *, is_scaled: bool, where: str) -> dict[str, torch.Tensor]:
    """The tensors with a separate head if the decoder's output is not scaled, else without one.

    Hugging Face has separate options for scaling the output and for sharing the embedding with the head; this network
    has one for both. A shared head without scaling is stored as a separate head.
    """
    is_tied = HEAD not in tensors or torch.equal(tensors[HEAD], tensors[SHARED])
    if is_scaled and not is_tied:
        raise BundleError(
            f"{where}: {HEAD} differs from {SHARED}, but the configuration ties them (tie_word_embeddings)"
        )
    kept = drop_aliases(tensors, tied_head=is_scaled, where=where)
    if not is_scaled:
        kept.setdefault(HEAD, kept[SHARED])
    return kept


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / WEIGHTS).is_file():
        return read_tensors(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise BundleError(
            f"{folder.name} has neither {WEIGHTS} nor {INDEX}; save the model with save_pretrained of Hugging Face's "
            "T5ForConditionalGeneration"
        )
    places = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict):
        raise BundleError(f"{INDEX} has no weight_map, which lists the file of each tensor; save the model again")
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted({str(place) for place in places.values()}):
        if Path(shard).name != shard:
            raise BundleError(f"{INDEX} names {shard!r}; a shard must be the name of a file in the same folder")
        tensors |= read_tensors(folder / shard)
    return tensors

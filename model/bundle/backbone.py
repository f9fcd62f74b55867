"""The frozen T5 that all domains of a bundle share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from model.bundle.documents import parse_backbone_config, write_backbone_config
from model.bundle.layout import BACKBONE_CONFIG, BACKBONE_WEIGHTS
from model.bundle.manifest import file_record
from model.bundle.shapes import expected_norm_shapes, expected_shapes
from model.bundle.tensors import check_tensors, parse_tensors, write_tensors
from model.bundle.verified_files import VerifiedFiles
from model.errors import BackboneMismatchError, BundleError
from model.network.config import BackboneConfig
from model.network.network import EOS_ID, PAD_ID
from model.prompts.tokenizer import EOS, PAD, TextTokenizer


@dataclass(frozen=True, eq=False)
class Backbone:
    """Dimensions and weights of a T5; `sha256` is the digest of the weights' file.

    A backbone that was imported from a T5 has layer norms. In a VIP5 or P5 checkpoint they belong to the domain.
    """

    config: BackboneConfig
    weights: dict[str, torch.Tensor]
    sha256: str

    @property
    def has_layer_norms(self) -> bool:
        return "encoder.final_layer_norm.weight" in self.weights


def read_backbone(files: VerifiedFiles) -> Backbone:
    """Raises BundleError if config and weights do not match."""
    config = parse_backbone_config(files.read(BACKBONE_CONFIG))
    weights = parse_tensors(files.read(BACKBONE_WEIGHTS), BACKBONE_WEIGHTS.name)
    check_backbone(config, weights, str(BACKBONE_WEIGHTS))
    return Backbone(config, weights, files.manifest.files[BACKBONE_WEIGHTS].sha256)


def write_backbone(root: Path, config: BackboneConfig, weights: Mapping[str, torch.Tensor]) -> str:
    """Returns the digest of the weights' file."""
    check_backbone(config, weights, str(BACKBONE_WEIGHTS))
    (root / BACKBONE_CONFIG).parent.mkdir(parents=True, exist_ok=True)
    write_backbone_config(root / BACKBONE_CONFIG, config)
    write_tensors(root / BACKBONE_WEIGHTS, weights)
    return file_record(root / BACKBONE_WEIGHTS).sha256


def check_backbone(config: BackboneConfig, weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise BundleError unless the tensors are those of a T5, with all or none of its layer norms."""
    norms = expected_norm_shapes(config)
    expected = expected_shapes(config)
    if weights.keys() & norms.keys():
        expected |= norms
    check_tensors(weights, expected, where)


def require_same_backbone(stored: Backbone, config: BackboneConfig, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise BackboneMismatchError, naming the first difference, unless the frozen weights equal those of `stored`."""
    for field in fields(BackboneConfig):
        ours, theirs = getattr(stored.config, field.name), getattr(config, field.name)
        # Dropout affects training only, not the weights.
        if ours != theirs and field.name != "dropout_rate":
            raise BackboneMismatchError(
                f"the bundle's backbone has {field.name} {ours}, the checkpoint has {theirs}; the domains of a bundle "
                "share its backbone, so import this one into another bundle"
            )
    first, largest, num_different = "", 0.0, 0
    for name in expected_shapes(config):
        ours, theirs = stored.weights[name], weights[name]
        if ours.dtype == theirs.dtype and torch.equal(ours, theirs):
            continue
        first = first or name
        num_different += 1
        largest = max(largest, float((ours.double() - theirs.double()).abs().max()))
    if first:
        raise BackboneMismatchError(
            f"the checkpoint was not tuned on the bundle's backbone: {num_different} frozen parameters differ by up to "
            f"{largest:.3g}, the first is {first}; import it into another bundle"
        )


def check_tokenizer(tokenizer: TextTokenizer, config: BackboneConfig, where: str) -> None:
    """Raise BundleError for a tokenizer that is not T5's, or has more tokens than the embedding has rows."""
    for name, token_id, due in ((PAD, tokenizer.pad_id, PAD_ID), (EOS, tokenizer.eos_id, EOS_ID)):
        if token_id != due:
            raise BundleError(
                f"{where}: {name} has id {token_id}, in T5's tokenizer {due}; use the model's own tokenizer"
            )
    if tokenizer.vocab_size > config.vocab_size:
        raise BundleError(
            f"{where} has {tokenizer.vocab_size} tokens, but the embedding has {config.vocab_size} rows; "
            "use the tokenizer that the model was trained with"
        )

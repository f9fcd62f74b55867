"""The common part of importing: writing the backbone and the domain's tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from model.bundle.catalog import Catalog
from model.bundle.importers.features import read_features
from model.bundle.joins import Notice, no_notice
from model.bundle.layout import DomainSpec
from model.bundle.likely_names import hint
from model.bundle.manifest import check_domain_name
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.tables import read_source
from model.bundle.tensors import check_tensors
from model.bundle.users import Users
from model.bundle.writer import BundleWriter
from model.errors import BundleError, ExistsError
from model.network.config import BackboneConfig
from model.progress import Progress


@dataclass(frozen=True)
class CheckpointSource:
    """Files of a foreign model. An existing bundle needs no tokenizer."""

    checkpoint: Path
    config: Path
    tokenizer: Path | None


@dataclass(frozen=True)
class DomainSource:
    """Files of a domain, and its name in the bundle."""

    name: str
    catalog: Path
    users: Path | None = None
    features: Path | None = None
    replace: bool = False  # whether to replace an existing domain of this name
    notice: Notice = no_notice  # told how catalog and embeddings meet, and of likely misnomers


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """A checkpoint that was read, with the tensors of the backbone and of the domain together."""

    name: str
    config: BackboneConfig
    tensors: dict[str, torch.Tensor]
    tokenizer: Tokenizer | None


def write_domain(model: ForeignModel, spec: DomainSpec, source: DomainSource, out: Path, progress: Progress) -> str:
    """Add the model's domain to the bundle at `out`; returns the bundle's new hash."""
    check_domain_name(source.name)
    frozen, tuned = _split(model, spec)
    progress("reading the catalog", 0, None)
    catalog = _read_catalog(source)
    users = None if source.users is None else Users.from_table(read_source(source.users), source.users.name)
    features = None
    if source.features is not None:
        if not spec.layout.visual_tokens:
            raise BundleError(f"{model.name} is a model without images; remove the features")
        features = read_features(source.features, catalog, progress, source.notice)
    progress("writing the bundle", 0, None)
    with BundleWriter(out) as writer:
        if source.name in writer.domains and not source.replace:
            raise ExistsError(f"the bundle has a domain {source.name!r} already; choose another name, or replace it")
        writer.share_backbone(model.config, frozen, model.tokenizer)
        writer.add_domain(spec, tuned, catalog, users=users, features=features)
        return writer.seal()


def _read_catalog(source: DomainSource) -> Catalog:
    """The catalog; the notice names columns that were likely meant for titles or images."""
    table = read_source(source.catalog)
    catalog = Catalog.from_table(table, source.catalog.name)
    absent = [name for name in ("title", "image") if name not in table.column_names]
    meant = hint(catalog.attribute_columns, absent)
    if meant:
        source.notice(f"{source.catalog.name}: {meant}")
    return catalog


def _split(model: ForeignModel, spec: DomainSpec) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Frozen and tuned tensors."""
    frozen = expected_shapes(model.config)
    check_tensors(model.tensors, frozen | expected_domain_shapes(model.config, spec.layout), model.name)
    return (
        {name: tensor for name, tensor in model.tensors.items() if name in frozen},
        {name: tensor for name, tensor in model.tensors.items() if name not in frozen},
    )

"""Statistics of a bundle."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.bundle.bundle import Bundle
from model.bundle.codebook import Codebook
from model.bundle.domain_files import DomainFiles
from model.bundle.layout import ImageEncoder, PromptDefaults
from model.network.config import BackboneConfig, DomainLayout


@dataclass(frozen=True)
class BackboneSummary:
    """Sizes are in bytes."""

    config: BackboneConfig
    sha256: str
    num_parameters: int
    has_layer_norms: bool
    size: int


@dataclass(frozen=True)
class CodebookSummary:
    """Codes by level, last codes, and the paths that were trained on; `names_new_items` from their embeddings."""

    sizes: tuple[int, ...]
    num_last: int
    num_paths: int
    first_word: int
    names_new_items: bool


@dataclass(frozen=True)
class DomainSummary:
    """Sizes are in bytes; `num_users` is None without a table of users, `has_features` is for the bundle's own file.

    `num_features` is the number of items with an embedding in it, None without the file.
    """

    name: str
    trained: bool
    num_items: int
    num_active_items: int
    num_users: int | None
    columns: tuple[str, ...]
    layout: DomainLayout
    num_parameters: int
    encoder: ImageEncoder | None
    has_features: bool
    num_features: int | None
    codebook: CodebookSummary | None
    prompts: PromptDefaults
    length_penalty: float
    size: int


@dataclass(frozen=True)
class BundleSummary:
    """The content of `vip5 bundle show`; the size is in bytes."""

    hash: str
    size: int
    backbone: BackboneSummary
    domains: tuple[DomainSummary, ...]


def summarise(bundle: Bundle) -> BundleSummary:
    files = {path: record.size for path, record in bundle.manifest.files.items()}
    backbone = BackboneSummary(
        config=bundle.backbone.config,
        sha256=bundle.backbone.sha256,
        num_parameters=_num_parameters(bundle.backbone.weights),
        has_layer_norms=bundle.backbone.has_layer_norms,
        size=sum(size for path, size in files.items() if path.parts[0] == "backbone"),
    )
    domains = tuple(
        _domain_summary(domain, sum(size for path, size in files.items() if path.parts[:2] == ("domains", name)))
        for name, domain in bundle.domains.items()
    )
    return BundleSummary(hash=bundle.hash, size=sum(files.values()), backbone=backbone, domains=domains)


def _domain_summary(domain: DomainFiles, size: int) -> DomainSummary:
    return DomainSummary(
        name=domain.spec.name,
        trained=domain.spec.trained,
        num_items=len(domain.catalog),
        num_active_items=int(domain.catalog.is_active.sum()),
        num_users=None if domain.users is None else len(domain.users),
        columns=domain.catalog.attribute_columns,
        layout=domain.spec.layout,
        num_parameters=_num_parameters(domain.adapter),
        encoder=domain.spec.encoder,
        has_features=domain.features is not None,
        num_features=None if domain.features is None else len(domain.features.item_ids),
        codebook=None if domain.codebook is None else _codebook_summary(domain.codebook),
        prompts=domain.spec.prompts,
        length_penalty=domain.spec.length_penalty,
        size=size,
    )


def _codebook_summary(codebook: Codebook) -> CodebookSummary:
    return CodebookSummary(
        sizes=codebook.sizes,
        num_last=codebook.num_last,
        num_paths=len(codebook.seen),
        first_word=codebook.first_word,
        names_new_items=codebook.projection is not None,
    )


def _num_parameters(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())

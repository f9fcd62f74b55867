"""The loaded files of a domain, apart for planning, which imports no torch, and for the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model.bundle.catalog import Catalog
from model.bundle.codebook import Codebook
from model.bundle.compiled_items import CompiledItems
from model.bundle.features import ItemFeatures
from model.bundle.index.index import Index
from model.bundle.layout import FEATURES, DomainSpec
from model.bundle.users import Users
from model.bundle.verified_files import FileSeal
from model.network.config import BackboneConfig
from model.prompts.assembly import TokenRows
from model.prompts.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class DomainTables:
    """What planning reads of a domain; a process that only plans has nothing else."""

    spec: DomainSpec
    catalog: Catalog
    identifiers: TokenRows  # of the items' index texts, without `</s>`
    users: Users | None
    compiled: CompiledItems | None = field(default=None, kw_only=True)
    """What the identifiers become, if it is known already."""
    index: Index | None = field(default=None, kw_only=True)
    """The memory that these are views of, if other processes may share it."""


@dataclass(frozen=True, eq=False)
class DomainFiles(DomainTables):
    """All files of a domain."""

    adapter: dict[str, Tensor]
    features: ItemFeatures | None
    codebook: Codebook | None = None
    root: Path | None = None
    """The bundle's folder."""
    seals: tuple[FileSeal, ...] = ()
    """All files that these were read from, for noticing later changes."""

    @property
    def features_path(self) -> Path | None:
        """The file that the embeddings were read from."""
        return next((seal.root / seal.path for seal in self.seals if seal.path.name == FEATURES), None)


@dataclass(frozen=True, eq=False)
class Foundation:
    """What all domains of an engine share, compared by digest; the backbone's weights themselves are not needed."""

    config: BackboneConfig
    backbone_sha256: str
    tokenizer: TextTokenizer
    tokenizer_sha256: str


@dataclass(frozen=True, eq=False)
class OpenedDomain:
    """One domain, and the hash of its bundle."""

    files: DomainFiles
    bundle_hash: str

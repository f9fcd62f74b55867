"""Opening bundles, which checks every rule before anything is served."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.bundle.backbone import Backbone, check_tokenizer, read_backbone
from model.bundle.codebook import Codebook, check_projection, parse_codebook
from model.bundle.documents import parse_backbone_config, parse_domain_spec
from model.bundle.domain_files import DomainFiles, Foundation, OpenedDomain
from model.bundle.domain_tables import read_tables
from model.bundle.features import check_features, open_features
from model.bundle.index.cache import IndexCache
from model.bundle.layout import (
    ADAPTER_WEIGHTS,
    BACKBONE_CONFIG,
    BACKBONE_WEIGHTS,
    CODEBOOK,
    DOMAIN_SPEC,
    FEATURES,
    TOKENIZER,
    DomainSpec,
    domain_file,
)
from model.bundle.manifest import Manifest
from model.bundle.shapes import expected_domain_shapes
from model.bundle.signatures import TrustedKeys
from model.bundle.tensors import check_tensors, parse_tensors
from model.bundle.verified_files import VerifiedFiles
from model.errors import BackboneMismatchError, BundleError
from model.network.config import BackboneConfig
from model.network.network import Vip5Network
from model.network.weights import build_network
from model.prompts.tokenizer import TextTokenizer


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle in memory, except for large files of image features."""

    root: Path
    manifest: Manifest
    backbone: Backbone
    tokenizer: TextTokenizer
    tokenizer_json: bytes
    foundation: Foundation
    domains: dict[str, DomainFiles]

    @property
    def hash(self) -> str:
        return self.manifest.hash

    def network(self) -> Vip5Network:
        """The frozen network of the backbone and all domains, in the order of their names."""
        domains = [self.domains[name] for name in sorted(self.domains)]
        layouts, adapters = [files.spec.layout for files in domains], [files.adapter for files in domains]
        return build_network(self.backbone.config, layouts, self.backbone.weights, adapters)


@dataclass(frozen=True)
class Opening:
    """How bundles are opened: who must have signed them, and where the indexes of their catalogs are kept."""

    trusted: TrustedKeys | None = None
    indexes: IndexCache | None = None


def open_bundle(root: Path, trusted: TrustedKeys | None = None, indexes: IndexCache | None = None) -> Bundle:
    """Verify and load a bundle, which one of the trusted keys must have signed if they are given.

    With `indexes`, large catalogs are compiled once and kept there.
    Raises BundleError or a subclass, naming the file and the rule.
    """
    files = VerifiedFiles(root, trusted)
    backbone = read_backbone(files)
    tokenizer_json = bytes(files.read(TOKENIZER))
    tokenizer = TextTokenizer.parse(tokenizer_json, TOKENIZER.name)
    check_tokenizer(tokenizer, backbone.config, str(TOKENIZER))
    manifest = files.manifest
    foundation = Foundation(backbone.config, backbone.sha256, tokenizer, manifest.files[TOKENIZER].sha256)
    domains = {name: _open_domain(files, name, foundation, indexes) for name in manifest.domains}
    files.verify_rest()
    return Bundle(root, manifest, backbone, tokenizer, tokenizer_json, foundation, domains)


def open_domain(
    root: Path,
    name: str,
    foundation: Foundation,
    trusted: TrustedKeys | None = None,
    indexes: IndexCache | None = None,
) -> OpenedDomain:
    """Verify and load one domain of a bundle whose backbone is loaded already, without reading the backbone again.

    `trusted` and `indexes` are as in `open_bundle`. Raises BackboneMismatchError for another
    backbone or tokenizer, BundleError or a subclass for any other broken rule.
    """
    files = VerifiedFiles(root, trusted)
    manifest = files.manifest
    if name not in manifest.domains:
        raise BundleError(f"{root.name} has no domain {name!r}; it has {', '.join(manifest.domains) or 'none'}")
    _require_foundation(files, foundation)
    domain = _open_domain(files, name, foundation, indexes)
    files.verify([TOKENIZER])
    return OpenedDomain(domain, manifest.hash)


def check_domain(
    spec: DomainSpec, adapter: dict[str, torch.Tensor], config: BackboneConfig, backbone_sha256: str
) -> None:
    """Raise BackboneMismatchError or BundleError unless the domain and its tensors match the backbone."""
    if spec.backbone_sha256 != backbone_sha256:
        raise BackboneMismatchError(
            f"{domain_file(spec.name, DOMAIN_SPEC)}: the domain was tuned on the backbone with sha256 "
            f"{spec.backbone_sha256}, the bundle has {backbone_sha256}; import it into another bundle"
        )
    if 0 < spec.layout.whole_word_rows < spec.prompts.max_tokens:
        raise BundleError(
            f"{domain_file(spec.name, DOMAIN_SPEC)}: prompts.max_tokens is {spec.prompts.max_tokens}, but the table of "
            f"whole-word embeddings has {spec.layout.whole_word_rows} rows, one per word; set max_tokens to at most "
            f"{spec.layout.whole_word_rows}"
        )
    where = domain_file(spec.name, ADAPTER_WEIGHTS)
    check_tensors(adapter, expected_domain_shapes(config, spec.layout), str(where))


def _require_foundation(files: VerifiedFiles, foundation: Foundation) -> None:
    name = files.root.name
    dues = {BACKBONE_WEIGHTS: foundation.backbone_sha256, TOKENIZER: foundation.tokenizer_sha256}
    for path, due in dues.items():
        found = files.manifest.files[path].sha256
        if found != due:
            raise BackboneMismatchError(
                f"{name}: {path} has the sha256 {found}, but the served one has {due}; all domains of a service "
                "share one backbone and tokenizer, so serve this bundle from another service"
            )
    config = parse_backbone_config(files.read(BACKBONE_CONFIG))
    if replace(config, dropout_rate=foundation.config.dropout_rate) != foundation.config:
        raise BackboneMismatchError(
            f"{name}: {BACKBONE_CONFIG} has other dimensions than the served backbone; serve this bundle from another "
            "service"
        )


def _open_domain(files: VerifiedFiles, name: str, foundation: Foundation, indexes: IndexCache | None) -> DomainFiles:
    weights = files.read(domain_file(name, ADAPTER_WEIGHTS))  # in the manifest's order: the first fault is named
    spec = parse_domain_spec(files.read(domain_file(name, DOMAIN_SPEC)), name)
    adapter = parse_tensors(weights, ADAPTER_WEIGHTS)
    check_domain(spec, adapter, foundation.config, foundation.backbone_sha256)
    tables = read_tables(files, spec, foundation, indexes)
    features = domain_file(name, FEATURES)
    embeddings = None
    if features in files:
        file, verify = files.open(features)
        embeddings = open_features(file, str(features), spec.layout.feature_dim, verify)
        check_features(embeddings, tables.catalog, str(features))
    files.verify(path for path in files.manifest.files if path.parent == features.parent)
    return DomainFiles(
        spec=spec,
        catalog=tables.catalog,
        identifiers=tables.identifiers,
        users=tables.users,
        compiled=tables.compiled,
        index=tables.index,
        adapter=adapter,
        features=embeddings,
        codebook=_codebook(files, spec),
        root=files.root,
        seals=files.seals(BACKBONE_CONFIG.parent, features.parent),
    )


def _codebook(files: VerifiedFiles, spec: DomainSpec) -> Codebook | None:
    path = domain_file(spec.name, CODEBOOK)
    if path not in files:
        return None
    codebook = parse_codebook(files.read(path), str(path))
    check_projection(codebook, spec.layout.feature_dim, str(path))
    return codebook

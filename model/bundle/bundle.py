"""Opening a bundle: every rule is checked before anything of it is served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.bundle.backbone import Backbone, check_tokenizer, read_backbone
from model.bundle.catalog import Catalog
from model.bundle.documents import read_domain_spec
from model.bundle.features import check_features
from model.bundle.identifiers import tokenise_identifiers
from model.bundle.layout import (
    ADAPTER_WEIGHTS,
    BACKBONE_WEIGHTS,
    CATALOG,
    DOMAIN_SPEC,
    FEATURES,
    TOKENIZER,
    USERS,
    DomainSpec,
    domain_file,
)
from model.bundle.manifest import Manifest, verify_files
from model.bundle.shapes import expected_domain_shapes
from model.bundle.tensors import check_tensors, read_tensors
from model.bundle.users import Users
from model.errors import BackboneMismatchError, BundleError
from model.network.config import BackboneConfig
from model.prompts.assembly import TokenRows
from model.prompts.tokenizer import TextTokenizer


@dataclass(frozen=True, eq=False)
class DomainFiles:
    """What a bundle holds of one domain."""

    spec: DomainSpec
    adapter: dict[str, torch.Tensor]
    catalog: Catalog
    identifiers: TokenRows  # of the items' index texts, without `</s>`
    users: Users | None
    features_path: Path | None


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle, loaded into memory but for its image features."""

    root: Path
    hash: str
    backbone: Backbone
    tokenizer: TextTokenizer
    domains: dict[str, DomainFiles]


def open_bundle(root: Path) -> Bundle:
    """Verify and load a bundle. Raises BundleError or one of its kinds, naming the file and the rule."""
    manifest = verify_files(root)
    backbone = read_backbone(root, manifest.files[BACKBONE_WEIGHTS].sha256)
    tokenizer = TextTokenizer.from_file(root / TOKENIZER)
    check_tokenizer(tokenizer, backbone.config, str(TOKENIZER))
    domains = {name: _open_domain(root, name, manifest, backbone, tokenizer) for name in manifest.domains}
    return Bundle(root=root, hash=manifest.hash, backbone=backbone, tokenizer=tokenizer, domains=domains)


def check_domain(
    spec: DomainSpec, adapter: dict[str, torch.Tensor], config: BackboneConfig, backbone_sha256: str
) -> None:
    """Raise BackboneMismatchError or BundleError unless the domain belongs to the backbone and its tensors fit."""
    if spec.backbone_sha256 != backbone_sha256:
        raise BackboneMismatchError(
            f"{domain_file(spec.name, DOMAIN_SPEC)}: the domain was tuned on the backbone with sha256 "
            f"{spec.backbone_sha256}, the bundle has {backbone_sha256}; import it into a bundle of its own"
        )
    if 0 < spec.layout.whole_word_rows < spec.prompts.max_tokens:
        raise BundleError(
            f"{domain_file(spec.name, DOMAIN_SPEC)}: prompts.max_tokens is {spec.prompts.max_tokens}, the table of "
            f"whole-word embeddings has {spec.layout.whole_word_rows} rows, one for each word; set max_tokens to "
            f"at most {spec.layout.whole_word_rows}"
        )
    where = domain_file(spec.name, ADAPTER_WEIGHTS)
    check_tensors(adapter, expected_domain_shapes(config, spec.layout), str(where))


def _open_domain(
    root: Path, name: str, manifest: Manifest, backbone: Backbone, tokenizer: TextTokenizer
) -> DomainFiles:
    spec = read_domain_spec(root / domain_file(name, DOMAIN_SPEC), name)
    adapter = read_tensors(root / domain_file(name, ADAPTER_WEIGHTS))
    check_domain(spec, adapter, backbone.config, backbone.sha256)
    where = str(domain_file(name, CATALOG))
    catalog = Catalog.read(root / where, where)
    identifiers = tokenise_identifiers(catalog.indices, catalog.item_ids, tokenizer, where)
    users, features = domain_file(name, USERS), domain_file(name, FEATURES)
    if features in manifest.files:
        check_features(root / features, spec.layout.feature_dim, catalog, str(features))
    return DomainFiles(
        spec=spec,
        adapter=adapter,
        catalog=catalog,
        identifiers=identifiers,
        users=Users.read(root / users, str(users)) if users in manifest.files else None,
        features_path=root / features if features in manifest.files else None,
    )

"""Atomic writing of bundles.

    with BundleWriter(root) as writer:
        writer.share_backbone(config, weights, tokenizer)
        writer.add_domain(spec, adapter, catalog)
        digest = writer.seal()

Files are written to a hidden folder beside the target, which replaces the target when the bundle is sealed. Without
`seal`, nothing remains.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import torch
from tokenizers import Tokenizer

from model.bundle.backbone import (
    Backbone,
    check_tokenizer,
    read_backbone,
    require_same_backbone,
    write_backbone,
)
from model.bundle.bundle import check_domain
from model.bundle.catalog import Catalog
from model.bundle.codebook import Codebook, check_codes, check_projection, write_codebook
from model.bundle.documents import write_domain_spec, write_json
from model.bundle.features import ItemFeatures, write_features
from model.bundle.folders import is_free, link_tree, publish, temporary_sibling
from model.bundle.identifiers import tokenise_identifiers
from model.bundle.layout import (
    ADAPTER_WEIGHTS,
    CATALOG,
    CODEBOOK,
    DOMAIN_SPEC,
    FEATURES,
    MANIFEST,
    TOKENIZER,
    TRAINING_RECORD,
    USERS,
    DomainSpec,
    domain_file,
)
from model.bundle.manifest import FileRecord, check_domain_name, read_manifest, require_digest, write_manifest
from model.bundle.tensors import write_tensors
from model.bundle.users import Users
from model.bundle.verified_files import VerifiedFiles
from model.errors import BackboneMismatchError, BundleError
from model.network.config import BackboneConfig
from model.prompts.tokenizer import TextTokenizer


class BundleWriter:
    """Writes a new bundle, or adds to the bundle at `root`, which is verified first.

    Without `keeps_domains`, the bundle at `root` is replaced as a whole when the new one is sealed.
    """

    def __init__(self, root: Path, *, keeps_domains: bool = True) -> None:
        self._root = root.resolve()
        self._hash: str | None = None
        self._backbone: Backbone | None = None
        self._tokenizer: TextTokenizer | None = None
        self._tokenizer_json = b""
        files = VerifiedFiles(root) if keeps_domains and not is_free(root) else None
        if not keeps_domains and not is_free(root):
            self._hash = read_manifest(root).hash  # what is no bundle is not replaced
        self._kept: dict[PurePosixPath, FileRecord] = {}
        self._folder = temporary_sibling(root)
        try:
            if files is not None:
                self._take_over(files)
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def backbone(self) -> Backbone | None:
        """The bundle's backbone, or None if it has none yet."""
        return self._backbone

    @property
    def domains(self) -> frozenset[str]:
        """Names of the domains in the bundle so far."""
        return frozenset(folder.name for folder in (self._folder / "domains").glob("*"))

    def share_backbone(
        self, config: BackboneConfig, weights: Mapping[str, torch.Tensor], tokenizer: Tokenizer | None
    ) -> Backbone:
        """Set the bundle's backbone, or check that it is the same if there is one already.

        An existing bundle needs no tokenizer. Raises BackboneMismatchError if weights or tokenizer differ.
        """
        if self._backbone is not None:
            require_same_backbone(self._backbone, config, weights)
            self._require_same_tokenizer(tokenizer)
            return self._backbone
        if tokenizer is None:
            raise BundleError("a new bundle needs a tokenizer; give the one that the model was trained with")
        sha256 = write_backbone(self._folder, config, weights)
        self._tokenizer_json = tokenizer.to_str(pretty=True).encode()
        (self._folder / TOKENIZER).write_bytes(self._tokenizer_json)
        self._tokenizer = TextTokenizer(tokenizer)
        check_tokenizer(self._tokenizer, config, str(TOKENIZER))
        self._backbone = Backbone(config, dict(weights), sha256)
        return self._backbone

    def add_domain(  # noqa: PLR0913 - one argument for each file of a domain
        self,
        spec: DomainSpec,
        adapter: dict[str, torch.Tensor],
        catalog: Catalog,
        *,
        users: Users | None = None,
        features: ItemFeatures | None = None,
        codebook: Codebook | None = None,
        training_record: Mapping[str, object] | None = None,
    ) -> None:
        """Add a domain, or replace the one with its name. `spec.backbone_sha256` is filled in here.

        `training_record` describes how the domain was trained; it is written to training.json for people to read.
        """
        check_domain_name(spec.name)
        if self._backbone is None or self._tokenizer is None:
            raise BundleError("a bundle needs its backbone before its first domain; call share_backbone first")
        spec = replace(spec, backbone_sha256=self._backbone.sha256)
        check_domain(spec, adapter, self._backbone.config, self._backbone.sha256)
        place = domain_file(spec.name, CATALOG)
        tokenise_identifiers(catalog.indices, catalog.item_ids, self._tokenizer, str(place))
        if features is not None:
            _check_encoder(features, spec)
        if codebook is not None:
            where = str(domain_file(spec.name, CODEBOOK))
            check_codes(codebook, catalog.indices, where)
            check_projection(codebook, spec.layout.feature_dim, where)
        folder = (self._folder / place).parent
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._kept = {path: record for path, record in self._kept.items() if path.parent != place.parent}
        write_domain_spec(folder / DOMAIN_SPEC, spec)
        write_tensors(folder / ADAPTER_WEIGHTS, adapter)
        catalog.write(folder / CATALOG)
        if users is not None:
            users.write(folder / USERS)
        if features is not None:
            write_features(folder / FEATURES, features.of(catalog))
        if codebook is not None:
            write_codebook(folder / CODEBOOK, codebook)
        if training_record is not None:
            write_json(folder / TRAINING_RECORD, training_record)

    def seal(self) -> str:
        """Write the manifest and move the bundle to its target; returns its hash.

        Raises BundleError if another writer has changed the target meanwhile, whose work would be lost, and
        IntegrityError if a file that is taken over was changed.
        """
        digest = write_manifest(self._folder)
        self._require_kept()
        present = read_manifest(self._root).hash if (self._root / MANIFEST).exists() else None
        if present != self._hash:
            raise BundleError(f"{self._root.name} was changed by another process meanwhile; repeat the command")
        publish(self._folder, self._root)
        return digest

    def _require_kept(self) -> None:
        """The files that were verified have hard links in the new bundle, and could have been overwritten since."""
        written = read_manifest(self._folder).files
        for path, record in self._kept.items():
            require_digest(path, record, written[path].sha256)

    def _take_over(self, files: VerifiedFiles) -> None:
        self._hash = files.manifest.hash
        self._kept = dict(files.manifest.files)
        self._backbone = read_backbone(files)
        self._tokenizer_json = bytes(files.read(TOKENIZER))
        self._tokenizer = TextTokenizer.parse(self._tokenizer_json, TOKENIZER.name)
        files.verify_rest()
        link_tree(self._root, self._folder)
        # The manifest will be rewritten, and through the hard link that would change the original.
        (self._folder / MANIFEST).unlink()

    def _require_same_tokenizer(self, tokenizer: Tokenizer | None) -> None:
        if tokenizer is None:
            return
        stored = Tokenizer.from_buffer(self._tokenizer_json)
        if stored.get_vocab(with_added_tokens=True) != tokenizer.get_vocab(with_added_tokens=True):
            raise BackboneMismatchError(
                "the tokenizer's vocabulary differs from that of the bundle's; the domains of a bundle share its "
                "tokenizer, so leave the tokenizer out, or import into another bundle"
            )


def _check_encoder(features: ItemFeatures, spec: DomainSpec) -> None:
    """Raise BundleError for features of another encoder than the model's."""
    if features.dim != spec.layout.feature_dim:
        raise BundleError(
            f"the features are {features.dim} wide, but the model reads {spec.layout.feature_dim}; give features of "
            "the encoder that the model was tuned with"
        )
    if spec.encoder is not None and features.encoder not in {None, spec.encoder.name}:
        raise BundleError(
            f"the features were made by {features.encoder}, but the model was tuned with {spec.encoder.name}; encode "
            f"the images with {spec.encoder.name}"
        )

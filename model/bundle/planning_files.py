"""Opens what a process needs that plans and has no engine: all files of a domain but the weights. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from model.bundle.documents import parse_backbone_config, parse_domain_spec
from model.bundle.domain_files import DomainFiles, Foundation, OpenedDomain
from model.bundle.domain_tables import read_tables, tables_of
from model.bundle.features import check_features, open_features
from model.bundle.index.index import Index
from model.bundle.layout import BACKBONE_CONFIG, BACKBONE_WEIGHTS, DOMAIN_SPEC, FEATURES, TOKENIZER, domain_file
from model.bundle.signatures import TrustedKeys
from model.bundle.verified_files import VerifiedFiles
from model.errors import IntegrityError
from model.prompts.tokenizer import TextTokenizer


def read_foundation(root: Path, trusted: TrustedKeys | None = None) -> Foundation:
    """What all domains share; the digest of the backbone is the manifest's. Raises BundleError kinds."""
    files = VerifiedFiles(root, trusted)
    return Foundation(
        config=parse_backbone_config(files.read(BACKBONE_CONFIG)),
        backbone_sha256=files.manifest.files[BACKBONE_WEIGHTS].sha256,
        tokenizer=TextTokenizer.parse(bytes(files.read(TOKENIZER)), TOKENIZER.name),
        tokenizer_sha256=files.manifest.files[TOKENIZER].sha256,
    )


def open_planning_files(
    root: Path,
    name: str,
    bundle_hash: str,
    foundation: Foundation,
    trusted: TrustedKeys | None = None,
    index: Index | None = None,
) -> OpenedDomain:
    """Open a domain without its weights; another process has verified these, and that the foundation is the bundle's.

    With an index, catalog and users come from it. Raises IntegrityError if the bundle has another hash by now, and
    BundleError kinds.
    """
    files = VerifiedFiles(root, trusted)
    if files.manifest.hash != bundle_hash:
        raise IntegrityError(
            f"{root.name} has the hash {files.manifest.hash} now, and {bundle_hash} is served; restore its old files"
        )
    spec = parse_domain_spec(files.read(domain_file(name, DOMAIN_SPEC)), name)
    tables = read_tables(files, spec, foundation, None) if index is None else tables_of(spec, index)
    features = domain_file(name, FEATURES)
    embeddings = None
    if features in files:
        file, verify = files.open(features)
        embeddings = open_features(file, str(features), spec.layout.feature_dim, verify)
        check_features(embeddings, tables.catalog, str(features))
    domain = DomainFiles(
        spec=spec,
        catalog=tables.catalog,
        identifiers=tables.identifiers,
        users=tables.users,
        compiled=tables.compiled,
        index=tables.index,
        adapter={},
        features=embeddings,
        root=files.root,
    )
    return OpenedDomain(domain, bundle_hash)

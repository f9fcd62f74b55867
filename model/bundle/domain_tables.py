"""Reads what planning needs of a domain: all files but the weights. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from model.bundle.catalog import Catalog
from model.bundle.documents import parse_domain_spec
from model.bundle.domain_files import DomainFiles, OpenedDomain
from model.bundle.features import check_features, open_features
from model.bundle.identifiers import tokenise_identifiers
from model.bundle.layout import CATALOG, DOMAIN_SPEC, FEATURES, TOKENIZER, USERS, DomainSpec, domain_file
from model.bundle.signatures import TrustedKeys
from model.bundle.users import Users
from model.bundle.verified_files import VerifiedFiles
from model.errors import IntegrityError
from model.prompts.tokenizer import TextTokenizer


def read_tables(files: VerifiedFiles, spec: DomainSpec, tokenizer: TextTokenizer) -> DomainFiles:
    """The files of a domain, without weights and seals. Raises BundleError kinds."""
    name = spec.name
    where = str(domain_file(name, CATALOG))
    catalog = Catalog.parse(files.read(domain_file(name, CATALOG)), where)
    identifiers = tokenise_identifiers(catalog.indices, catalog.item_ids, tokenizer, where)
    users, features = domain_file(name, USERS), domain_file(name, FEATURES)
    embeddings = None
    if features in files:
        file, verify = files.open(features)
        embeddings = open_features(file, str(features), spec.layout.feature_dim, verify)
        check_features(embeddings, catalog, str(features))
    known_users = Users.parse(files.read(users), str(users)) if users in files else None
    return DomainFiles(
        spec=spec, adapter={}, catalog=catalog, identifiers=identifiers, users=known_users, features=embeddings
    )


def open_tables(
    root: Path, name: str, bundle_hash: str, tokenizer: TextTokenizer, trusted: TrustedKeys | None = None
) -> OpenedDomain:
    """Open a domain without its weights; another process has verified these, and that the tokenizer is the bundle's.

    Raises IntegrityError if the bundle has another hash by now, and BundleError kinds.
    """
    files = VerifiedFiles(root, trusted)
    if files.manifest.hash != bundle_hash:
        raise IntegrityError(
            f"{root.name} has the hash {files.manifest.hash} now, and {bundle_hash} is served; restore its old files"
        )
    spec = parse_domain_spec(files.read(domain_file(name, DOMAIN_SPEC)), name)
    return OpenedDomain(read_tables(files, spec, tokenizer), bundle_hash)


def read_tokenizer(root: Path, trusted: TrustedKeys | None = None) -> TextTokenizer:
    """The tokenizer of a bundle. Raises BundleError kinds."""
    return TextTokenizer.parse(bytes(VerifiedFiles(root, trusted).read(TOKENIZER)), TOKENIZER.name)

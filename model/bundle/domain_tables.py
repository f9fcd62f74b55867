"""Reads a domain's items and users: from an index if there is one, else from the bundle's tables."""

from __future__ import annotations

import logging
import time

from model.bundle.catalog import Catalog
from model.bundle.compiled_items import CompiledItems
from model.bundle.domain_files import DomainTables, Foundation
from model.bundle.identifiers import tokenise_identifiers
from model.bundle.index.cache import IndexCache
from model.bundle.index.contents import IndexedTables
from model.bundle.index.index import Index
from model.bundle.index.keys import index_key
from model.bundle.layout import CATALOG, USERS, DomainSpec, domain_file
from model.bundle.users import Users
from model.bundle.verified_files import VerifiedFiles
from model.prompts.tokenizer import TextTokenizer

logger = logging.getLogger(__name__)


def read_tables(
    files: VerifiedFiles, spec: DomainSpec, foundation: Foundation, indexes: IndexCache | None
) -> DomainTables:
    """Verified tables of a domain. A large catalog's index is looked up in `indexes`, else compiled and kept there.

    With an index, the bundle's tables are not read here, and are left to be verified. Raises BundleError kinds.
    """
    key = _key(files, spec.name, foundation)
    index = None if indexes is None else indexes.find(key)
    if index is not None:
        return tables_of(spec, index)
    started_at = time.perf_counter()
    tables = _read(files, spec, foundation)
    if indexes is None or len(tables.catalog) < indexes.min_items:
        return tables
    try:
        index = compile_index(tables, foundation.tokenizer, key)
    except OSError as error:  # no memory left, or none of this kind: what was read is served all the same
        logger.warning("index_not_built", extra={"domain": spec.name, "reason": str(error)})
        return tables
    seconds = round(time.perf_counter() - started_at, 3)
    logger.info("index_built", extra={"domain": spec.name, "seconds": seconds, "bytes": index.memory.size})
    indexes.keep(index)
    return tables_of(spec, index)


def compile_index(tables: DomainTables, tokenizer: TextTokenizer, key: str = "") -> Index:
    """Compile tables into memory that processes can share, also those of a catalog that was changed while served.

    Raises OSError if there is no memory left.
    """
    compiled = tables.compiled or CompiledItems.of(tables.identifiers, tables.catalog.indices, tokenizer)
    return Index.build(key, IndexedTables(tables.catalog, compiled, tables.users))


def tables_of(spec: DomainSpec, index: Index) -> DomainTables:
    """Tables that are views of an index; `spec` is the domain's."""
    found = index.tables
    return DomainTables(
        spec=spec,
        catalog=found.catalog,
        identifiers=found.compiled.tokens.identifiers,
        users=found.users,
        compiled=found.compiled,
        index=index,
    )


def _read(files: VerifiedFiles, spec: DomainSpec, foundation: Foundation) -> DomainTables:
    where, users = domain_file(spec.name, CATALOG), domain_file(spec.name, USERS)
    catalog = Catalog.parse(files.read(where), str(where))
    identifiers = tokenise_identifiers(catalog.indices, catalog.item_ids, foundation.tokenizer, str(where))
    known_users = Users.parse(files.read(users), str(users)) if users in files else None
    return DomainTables(spec=spec, catalog=catalog, identifiers=identifiers, users=known_users)


def _key(files: VerifiedFiles, domain: str, foundation: Foundation) -> str:
    digests = {path: record.sha256 for path, record in files.manifest.files.items()}
    users = digests.get(domain_file(domain, USERS))
    return index_key(digests[domain_file(domain, CATALOG)], users, foundation.tokenizer_sha256)

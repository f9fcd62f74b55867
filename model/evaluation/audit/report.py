"""Audit of a bundle's domain against the dataset that it was trained on or is evaluated with.

Reads only domain.json, catalog, codebook and tokenizer, so a bundle with invalid identifiers can be audited as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.codebook import parse_codebook
from model.bundle.documents import parse_domain_spec
from model.bundle.layout import CATALOG, CODEBOOK, DOMAIN_SPEC, TOKENIZER, domain_file
from model.bundle.verified_files import VerifiedFiles
from model.datasets.dataset import Dataset
from model.errors import UnknownDomainError
from model.evaluation.audit.codes import CodeAudit, audit_codes
from model.evaluation.audit.identifiers import IdentifierAudit, audit_identifiers
from model.evaluation.audit.leaks import LeakAudit, audit_leaks
from model.evaluation.audit.share import Share
from model.prompts.tokenizer import TextTokenizer


@dataclass(frozen=True)
class CoverageAudit:
    """How the bundle's catalog and the dataset's items differ; examples are item ids."""

    only_in_bundle: Share  # of the bundle's items
    only_in_data: Share  # of the dataset's items
    targets_not_in_bundle: Share  # of test targets: they cannot be recommended
    other_index: Share  # of items in both: their identifiers differ


@dataclass(frozen=True)
class AuditReport:
    """The result of `vip5 bundle audit`."""

    bundle_hash: str
    domain: str
    dataset: str
    indexing: str
    leaks: LeakAudit
    identifiers: IdentifierAudit
    coverage: CoverageAudit
    codes: CodeAudit | None = None  # None for a domain without a codebook
    templates: tuple[str, ...] = ()  # the domain's own, as `name: text`


def audit_domain(root: Path, domain: str, dataset: Dataset) -> AuditReport:
    """Raises IntegrityError for an incomplete or modified bundle, UnknownDomainError for a domain that it lacks."""
    files = VerifiedFiles(root)
    manifest = files.manifest
    if domain not in manifest.domains:
        names = ", ".join(manifest.domains) or "none"
        raise UnknownDomainError(f"{root} has no domain {domain!r}; it has {names}")
    where = domain_file(domain, CATALOG)
    catalog = Catalog.parse(files.read(where), str(where))
    tokenizer = TextTokenizer.parse(bytes(files.read(TOKENIZER)), TOKENIZER.name)
    codebook = domain_file(domain, CODEBOOK)
    book = parse_codebook(files.read(codebook), str(codebook)) if codebook in files else None
    document = domain_file(domain, DOMAIN_SPEC)
    spec = parse_domain_spec(files.read(document), domain)
    files.verify_rest()
    return AuditReport(
        bundle_hash=manifest.hash,
        domain=domain,
        dataset=dataset.provenance.name,
        indexing=dataset.provenance.indexing,
        leaks=audit_leaks(dataset, _numbers(catalog, dataset)),
        identifiers=audit_identifiers(catalog, tokenizer),
        coverage=_coverage(catalog, dataset),
        codes=None if book is None else audit_codes(catalog, book, dataset),
        templates=tuple(f"{each.template_id}: {each.text}" for each in spec.templates),
    )


def _numbers(catalog: Catalog, dataset: Dataset) -> NDArray[np.int64]:
    """The bundle's identifiers of the dataset's items; -1 if not a number, or not in the bundle."""
    index_of = dict(zip(catalog.item_ids, catalog.indices, strict=True))
    indices = [index_of.get(item_id, "") for item_id in dataset.catalog.item_ids]
    return np.array([int(index) if _is_number(index) else -1 for index in indices], dtype=np.int64)


def _is_number(index: str) -> bool:
    return index.isascii() and index.isdigit() and len(index) < 18


def _coverage(catalog: Catalog, dataset: Dataset) -> CoverageAudit:
    index_of = dict(zip(dataset.catalog.item_ids, dataset.catalog.indices, strict=True))
    in_both = [
        (item_id, index)
        for item_id, index in zip(catalog.item_ids, catalog.indices, strict=True)
        if item_id in index_of
    ]
    missing = [item_id for item_id in dataset.catalog.item_ids if catalog.row_of(item_id) is None]
    sequences = dataset.sequences
    targets = [dataset.catalog.item_ids[sequences.target(user, "test")] for user in sequences.users("test").tolist()]
    return CoverageAudit(
        only_in_bundle=Share.named([i for i in catalog.item_ids if i not in index_of], len(catalog)),
        only_in_data=Share.named(missing, len(index_of)),
        targets_not_in_bundle=Share.named([i for i in targets if catalog.row_of(i) is None], len(targets)),
        other_index=Share.named([i for i, index in in_both if index_of[i] != index], len(in_both)),
    )

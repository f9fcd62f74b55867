"""Builds what is served of a domain from its files and its state, without an engine."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feature_cache.patched import PatchedStore
from model.bundle.changes import with_added, with_values
from model.bundle.domain_files import OpenedDomain
from model.bundle.layout import DomainSpec
from model.planning.domain import ServedDomain
from model.prompts.tokenizer import TextTokenizer
from service.versions.domain_version import DomainVersion, PlacedDomain
from service.versions.state import DomainState, VersionRef

logger = logging.getLogger(__name__)


def build_domain(
    slot: int, opened: OpenedDomain, name: str, state: DomainState, tokenizer: TextTokenizer
) -> ServedDomain:
    """A domain under a name, with the items that the state adds. Does no I/O, and takes its time."""
    files = with_added(opened.files, state.changes, tokenizer)
    files = replace(files, spec=replace(files.spec, name=name))
    return ServedDomain.of(slot, files, tokenizer, opened.bundle_hash)


def version_at(
    ref: VersionRef, placed: PlacedDomain, state: DomainState, before: DomainVersion | None = None
) -> DomainVersion:
    """A version of a placed domain at a state; `before` is an earlier one. Does no I/O."""
    domain = placed.domain.with_catalog(with_values(placed.domain.catalog, state.changes)).with_rules(state.boosts)
    domain.eligible({})  # fills the cache: every request needs it
    rows = state.features.get(space_of(domain.spec), {})
    if before is not None and before.feature_rows is rows:
        features, num_left_out = before.features, before.num_left_out
    else:
        unpacked = _unpacked(rows, domain.spec.layout.feature_dim)
        features = PatchedStore(placed.features, unpacked) if unpacked else placed.features
        num_left_out = len(rows) - len(unpacked)
    return DomainVersion(ref, domain, state.catalog_revision, state.changes, features, rows, placed, num_left_out)


def space_of(spec: DomainSpec) -> str:
    """The feature space that a domain reads: the image encoder's name and the width of its embeddings."""
    encoder = spec.encoder.name if spec.encoder is not None else "unknown"
    return f"{encoder}/{spec.layout.feature_dim}"


def feature_to_base64(feature: NDArray[np.float32]) -> str:
    """An embedding as the journal stores it."""
    return base64.b64encode(feature.astype("<f4").tobytes()).decode()


def feature_from_base64(text: str, dim: int) -> NDArray[np.float32] | None:
    """An embedding of the journal; None for what is not `dim` finite numbers, which a journal in Redis may hold."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    row = np.frombuffer(content, dtype="<f4") if len(content) == 4 * dim else None
    return row if row is not None and np.isfinite(row).all() else None


def _unpacked(rows: Mapping[str, str], dim: int) -> dict[str, NDArray[np.float32]]:
    """Rows that are embeddings; the others are left out, so that the rest of the state is served."""
    found = {item_id: feature_from_base64(text, dim) for item_id, text in rows.items()}
    unpacked = {item_id: row for item_id, row in found.items() if row is not None}
    if len(unpacked) < len(rows):
        logger.error("embeddings_left_out", extra={"num_embeddings": len(rows) - len(unpacked)})
    return unpacked


def state_of_version(version: DomainVersion) -> DomainState:
    """The state of which `version_at` makes this version, as far as its bundle does not have it."""
    features = {space_of(version.domain.spec): version.feature_rows} if version.feature_rows else {}
    return DomainState(
        catalog_revision=version.catalog_revision,
        changes=version.changes,
        features=features,
        boosts=version.domain.rules,
    )

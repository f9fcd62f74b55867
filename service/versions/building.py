"""Builds what is served of a domain from its files and its state, without an engine."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feature_cache.patched import PatchedStore
from feature_cache.store import FeatureStore
from model.bundle.changes import with_added, with_values
from model.bundle.domain_files import OpenedDomain
from model.bundle.layout import DomainSpec
from model.planning.domain import ServedDomain
from model.prompts.tokenizer import TextTokenizer
from service.versions.domain_version import DomainVersion, PlacedDomain
from service.versions.state import DomainState, VersionRef


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
    domain = placed.domain.with_catalog(with_values(placed.domain.catalog, state.changes))
    domain.eligible({})  # fills the cache: every request needs it
    rows = state.features.get(space_of(domain.spec), {})
    if before is not None and before.feature_rows is rows:
        features = before.features
    else:
        features = _patched(placed.features, rows)
    return DomainVersion(ref, domain, state.catalog_revision, state.changes, features, rows, placed)


def space_of(spec: DomainSpec) -> str:
    """The feature space that a domain reads: the image encoder's name and the width of its embeddings."""
    encoder = spec.encoder.name if spec.encoder is not None else "unknown"
    return f"{encoder}/{spec.layout.feature_dim}"


def feature_to_base64(feature: NDArray[np.float32]) -> str:
    """An embedding as the journal stores it."""
    return base64.b64encode(feature.astype("<f4").tobytes()).decode()


def _patched(store: FeatureStore, rows: Mapping[str, str]) -> FeatureStore:
    if not rows:
        return store
    unpacked = {item_id: np.frombuffer(base64.b64decode(text), dtype="<f4") for item_id, text in rows.items()}
    return PatchedStore(store, unpacked)

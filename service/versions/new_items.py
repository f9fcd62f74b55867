"""Completes a change of the catalog before it is stored: identifiers of new items, and their embeddings.

What was chosen is part of the journal's entry, so all replicas, and every replay, have the same identifiers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.bundle.changes import CatalogChanges
from model.bundle.new_items import items_without_index, require_embeddings, require_projection, with_indices
from model.errors import InputError
from service.versions.building import feature_to_base64, space_of
from service.versions.domain_version import DomainVersion
from service.versions.state import CatalogEntry, content_digest

Embeddings = Mapping[str, NDArray[np.float32]]
"""[F] by item."""


async def completed(entry: CatalogEntry, version: DomainVersion, embeddings: Embeddings) -> CatalogEntry:
    """The entry with an index for each added row; `embeddings` are those given with the rows.

    Raises CatalogError, InputError.
    """
    chosen = items_without_index(entry.changes)
    if not chosen:
        return entry
    domain, changes = version.domain, entry.changes
    _check_ids(changes, version)
    codebook = require_projection(version.placed.opened.files.codebook, changes, domain.name)
    missing = [item_id for item_id in chosen if item_id not in embeddings]
    shortfall = ""
    if missing:
        batch = await version.features.get_many(missing)
        stored = zip(missing, batch.features.astype(np.float32), batch.is_present.tolist(), strict=True)
        embeddings = {**embeddings, **{item_id: row for item_id, row, is_present in stored if is_present}}
        shortfall = batch.shortfall
    require_embeddings(chosen, embeddings, domain.spec, shortfall)
    tokenizer, trie = domain.tokenizer, domain.trie

    def is_used(index: str) -> bool:
        return trie.has([*tokenizer.identifiers([index])[0], tokenizer.eos_id])

    changed = await asyncio.to_thread(with_indices, changes, embeddings, codebook, is_used)
    return replace(entry, changes=changed, asked=content_digest(entry))


def with_embeddings(entry: CatalogEntry, version: DomainVersion, embeddings: Embeddings) -> CatalogEntry:
    """The entry that also stores the embeddings given with its rows, which a domain without pictures has no use for.

    Raises InputError for one of another width.
    """
    spec = version.domain.spec
    dim = spec.layout.feature_dim
    if not embeddings or not dim:
        return entry
    for item_id, row in embeddings.items():
        check_width(item_id, row, dim, "add")
    texts = {item_id: feature_to_base64(row) for item_id, row in embeddings.items()}
    return replace(entry, features=texts, space=space_of(spec))


def check_width(item_id: str, row: NDArray[np.float32], dim: int, field: str) -> None:
    """Raise InputError, which names the body's field, for an embedding of another width than the model takes."""
    if len(row) != dim:
        raise InputError(
            f"the embedding of {item_id!r} has width {len(row)}, the model takes {dim}; encode the image with the "
            "encoder that GET /domains shows",
            field=field,
        )


def chosen_indices(changes: CatalogChanges, requested: CatalogChanges) -> dict[str, str]:
    """Identifiers of the requested rows that came without one, as they are in the state's changes."""
    chosen = set(items_without_index(requested))
    return {str(row["item_id"]): str(row["index"]) for row in changes.added if row["item_id"] in chosen}


def _check_ids(changes: CatalogChanges, version: DomainVersion) -> None:
    """Raise for rows whose faults would otherwise be reported as a missing embedding."""
    catalog = version.domain.catalog
    for number, row in enumerate(changes.added, start=1):
        item_id = row.get("item_id")
        if not isinstance(item_id, str) or not item_id.strip():
            raise InputError(f"add: row {number} has no item_id; give each row one, a string", field="add")
        if catalog.row_of(item_id) is not None:
            raise InputError(
                f"add: item {item_id!r} is in the catalog already, with its index; use activate to recommend it again, "
                "and set to change it",
                field="add",
            )

"""Identifiers of items that are added while a domain is served, made from their embeddings by the domain's codebook.

An item gets the nearest path of codes that was trained on, and a free last code; if the path is full, the next nearest
one with a free last code. Which last code comes first depends on the item's id alone, so the same item gets the same
identifier again as long as it is free.
"""

# F embedding width, G last codes of a path

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.bundle.changes import CatalogChanges, Row
from model.bundle.codebook import Codebook
from model.bundle.layout import DomainSpec
from model.errors import CatalogError, InputError

IsUsed = Callable[[str], bool]
"""Whether an item has this index."""


def items_without_index(changes: CatalogChanges) -> tuple[str, ...]:
    """Ids of the added items whose row has no index."""
    return tuple(str(row.get("item_id")) for row in changes.added if row.get("index") is None)


def require_projection(codebook: Codebook | None, changes: CatalogChanges, domain: str) -> Codebook:
    """The codebook, if it can make identifiers from embeddings. Raises CatalogError, which names the remedy, if not."""
    if codebook is None:
        reason = "has no codebook"
        remedy = "train it on identifiers that vip5 data index --method residual made"
    elif codebook.projection is None:
        reason = "has a codebook that was made without picture embeddings"
        remedy = "index its dataset with picture embeddings and train it again"
    else:
        return codebook
    number = 1 + next(place for place, row in enumerate(changes.added) if row.get("index") is None)
    raise CatalogError(
        f"add: row {number} has no index, and the domain {domain!r} {reason}, which would make one from the item's "
        f"embedding; give each row an index, or {remedy}"
    )


def with_indices(
    changes: CatalogChanges,
    embeddings: Mapping[str, NDArray[np.float32]],
    codebook: Codebook,
    is_used: IsUsed,
) -> CatalogChanges:
    """The changes, in which added rows without an index have one. `embeddings` [F] are those of their items.

    Raises InputError for an embedding of another width, and CatalogError if all paths are full.
    """
    given = [str(row["index"]) for row in changes.added if row.get("index") is not None]
    lots = _Lots(codebook, is_used, given)
    added = [row if row.get("index") is not None else _row(row, lots, embeddings) for row in changes.added]
    return CatalogChanges(changes.active, changes.values, tuple(added))


def require_embeddings(
    item_ids: Sequence[str], embeddings: Mapping[str, NDArray[np.float32]], spec: DomainSpec, shortfall: str
) -> None:
    """Raise InputError, which names the remedies, for the first item without an embedding.

    `shortfall` says why the store may not have found one that it has; empty if there is no such reason.
    """
    missing = next((item_id for item_id in item_ids if item_id not in embeddings), None)
    if missing is None:
        return
    encoder = "the model's encoder" if spec.encoder is None else spec.encoder.name
    raise InputError(
        f"add: item {missing!r} has neither an index nor an embedding to make one from"
        f"{f' ({shortfall})' if shortfall else ''}; give its row feature, the embedding of its picture by {encoder}, "
        "or, where embeddings are in Redis, put it there first with vip5 features put. This service has no image "
        "encoder: vip5 features encode makes embeddings of pictures",
        field="add",
    )


class _Lots:
    """Free last codes by path, of a catalog and of the rows before."""

    def __init__(self, codebook: Codebook, is_used: IsUsed, given: Iterable[str]) -> None:
        self._codebook = codebook
        self._is_used = is_used
        self._given = frozenset(given)
        self._free: dict[int, set[int]] = {}
        self._paths: list[tuple[int, ...]] = [tuple(path) for path in codebook.seen.tolist()]

    def draw(self, item_id: str, embedding: NDArray[np.float32]) -> str:
        projection = self._codebook.projection
        assert projection is not None
        if len(embedding) != len(projection.matrix):
            raise InputError(
                f"the embedding of {item_id!r} has width {len(embedding)}, the codebook takes {len(projection.matrix)};"
                " encode the image with the encoder that GET /domains shows",
                field="add",
            )
        for place in self._codebook.nearest_seen(projection.positions(embedding[None])[0]).tolist():
            free = self._free_of(place)
            if free:
                first = int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big")
                num_last = self._codebook.num_last
                last = min(free, key=lambda code: (code - first) % num_last)
                free.remove(last)
                return self._codebook.index_of(self._paths[place], last)
        raise CatalogError(
            f"add: no path has a free last code for item {item_id!r}: all {len(self._paths):,} paths have "
            f"{self._codebook.num_last:,} items; give it an index, or index the dataset with more codes and train again"
        )

    def _free_of(self, place: int) -> set[int]:
        if place not in self._free:
            path = self._paths[place]
            indices = {last: self._codebook.index_of(path, last) for last in range(self._codebook.num_last)}
            self._free[place] = {
                last for last, index in indices.items() if index not in self._given and not self._is_used(index)
            }
        return self._free[place]


def _row(row: Row, lots: _Lots, embeddings: Mapping[str, NDArray[np.float32]]) -> Row:
    item_id = str(row.get("item_id"))
    return {**row, "index": lots.draw(item_id, embeddings[item_id])}

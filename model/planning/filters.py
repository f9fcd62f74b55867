"""Masks of the items that match a filter, kept for the requests that follow."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping

from model.bundle.catalog import Catalog
from model.bundle.columns import Scalar
from model.decoding.eligibility import LeafMask
from model.decoding.trie import Trie

_MAX_BYTES = 64_000_000
_MAX_MASKS = 1_024
_MANY_ITEMS = 20_000
"""Matching this many items takes long enough to be worth another thread."""

Where = Mapping[str, tuple[Scalar, ...]]


class Filters:
    """Masks of one catalog's active items, by filter. Bounded in bytes; the least recently used go first.

    Thread-safe. Filters are told apart by a digest, so that their values are not kept.
    """

    def __init__(self, catalog: Catalog, trie: Trie, max_bytes: int = _MAX_BYTES) -> None:
        self._catalog = catalog
        self._trie = trie
        self._max_bytes = max_bytes
        self._masks: OrderedDict[bytes, LeafMask] = OrderedDict()
        self._num_bytes = 0
        self._unfiltered: LeafMask | None = None
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Memory of the masks that are kept."""
        return self._num_bytes

    def is_quick(self, where: Where) -> bool:
        """Whether `mask` takes well below a millisecond."""
        return len(self._catalog) < _MANY_ITEMS or (self._unfiltered if not where else self._find(where)) is not None

    def mask(self, where: Where) -> LeafMask:
        """Leaves of the active items that match. Raises UnknownColumnError and InputError."""
        if not where:
            if self._unfiltered is None:
                self._unfiltered = LeafMask.of(self._catalog.is_active[self._trie.rows_of_leaves])
            return self._unfiltered
        mask = self._find(where)
        if mask is None:
            is_member = self._catalog.is_active & self._catalog.mask(where)
            mask = LeafMask.of(is_member[self._trie.rows_of_leaves], _digest(where))
            self._keep(where, mask)
        return mask

    def _find(self, where: Where) -> LeafMask | None:
        digest = _digest(where)
        with self._lock:
            mask = self._masks.get(digest)
            if mask is not None:
                self._masks.move_to_end(digest)
            return mask

    def _keep(self, where: Where, mask: LeafMask) -> None:
        digest = _digest(where)
        with self._lock:
            if digest in self._masks:
                return
            self._masks[digest] = mask
            self._num_bytes += mask.num_bytes
            while self._num_bytes > self._max_bytes or len(self._masks) > _MAX_MASKS:
                _, dropped = self._masks.popitem(last=False)
                self._num_bytes -= dropped.num_bytes


def _digest(where: Where) -> bytes:
    # repr tells True, 1, 1.0 and "1" apart, which match different columns.
    return hashlib.sha256(repr(sorted(where.items())).encode()).digest()

"""Boosts of a domain: factors by which items count more, or less, than the model says.

All factors that apply to an item are multiplied. The domain's own rules are compiled once for each catalog.
"""

# N leaves

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.decoding.eligibility import LeafMask
from model.decoding.leaf_boosts import MAX_NATS, BoostSpec, BoostTable
from model.decoding.leaf_groups import Limit
from model.decoding.leaf_intervals import NOTHING
from model.decoding.trie import Trie
from model.errors import InputError, UnknownItemError
from model.planning.leaf_columns import LeafColumn, LeafColumns, value_of

MIN_FACTOR, MAX_FACTOR = 1e-6, 1e6
_MAX_BYTES = 32_000_000


class Factors(Protocol):
    """Factors by column and value, and by item. Values that are no strings are written as in JSON."""

    @property
    def columns(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def items(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class BoostFactors:
    """Factors that are not part of a request's body."""

    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    items: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.columns or self.items)


NO_FACTORS = BoostFactors()


def num_values(factors: Factors) -> int:
    """Number of factors by column and value."""
    return sum(map(len, factors.columns.values()))


def spec_of(factors: Factors, *, has_rules: bool) -> BoostSpec:
    columns = ((name, tuple(sorted(values.items()))) for name, values in sorted(factors.columns.items()) if values)
    return BoostSpec(tuple(columns), has_rules)


def factor_of(value: object) -> float:
    """A factor of a request. Raises ValueError."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not MIN_FACTOR <= value <= MAX_FACTOR:  # type: ignore[operator]  # false for NaN
        raise ValueError(
            f"a factor must be a number from {MIN_FACTOR:g} to {MAX_FACTOR:g}, not {value!r}; to leave items out, use "
            "exclude_items or where"
        )
    return float(value)  # type: ignore[arg-type]


class DomainBoosts:
    """The tables of boosts of one catalog. Bounded in bytes; the least recently used go first. Thread-safe."""

    def __init__(
        self, catalog: Catalog, trie: Trie, columns: LeafColumns, rules: BoostFactors, max_bytes: int = _MAX_BYTES
    ) -> None:
        self._catalog = catalog
        self._trie = trie
        self._columns = columns
        self._rules = rules
        self._rule_nats: NDArray[np.float32] | None = None
        self._max_bytes = max_bytes
        self._tables: OrderedDict[tuple[BoostSpec, bytes], BoostTable] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_tables(self) -> int:
        return len(self._tables)

    def check(self, columns: Mapping[str, Mapping[str, float]], where: str) -> None:
        """Raises UnknownColumnError, and InputError for a value of another type than the column's."""
        for name, values in columns.items():
            field = f"{where}.columns.{name}"
            kind = self._columns.kind_of(name, field)
            for text in values:
                value_of(kind, text, field)

    def table(self, spec: BoostSpec, mask: LeafMask) -> BoostTable:
        """The boosts of the members of a filter of the same catalog. Their columns must have been checked."""
        key = (spec, mask.key)
        with self._lock:
            table = self._tables.get(key)
            if table is None:
                table = BoostTable(self._trie.intervals, lambda: self._nats(spec, mask), spec)
                self._tables[key] = table
                most = max(2, self._max_bytes // table.num_bytes)
                while len(self._tables) > most:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(key)
            return table

    def limit(self, column: str, most: int) -> Limit:
        """At most so many items of each value. Raises UnknownColumnError."""
        self._columns.kind_of(column, f"max_per.{column}")
        return Limit(column, lambda: self._columns.of(column).groups, most)

    def rules_of(self, mask: LeafMask) -> BoostTable | None:
        """The rules alone, which most requests need for all active items; None without any."""
        return self.table(BoostSpec(has_rules=True), mask) if self._rules else None

    def warm_up(self, mask: LeafMask) -> None:
        """Compile the rules."""
        table = self.rules_of(mask)
        if table is not None:
            table.maxima  # noqa: B018  # computed when first read

    def _nats(self, spec: BoostSpec, mask: LeafMask) -> NDArray[np.float32]:
        parts = [_nats_of_column(self._columns.of(name), dict(factors)) for name, factors in spec.columns]
        if spec.has_rules:
            parts.append(self._nats_of_rules())
        nats = parts[0].copy() if parts else np.zeros(self._trie.num_leaves, dtype=np.float32)
        for part in parts[1:]:
            nats += part
        np.clip(nats, -MAX_NATS, MAX_NATS, out=nats)
        nats[~mask.is_member] = NOTHING
        return nats

    def _nats_of_rules(self) -> NDArray[np.float32]:
        """[N]. Columns and items that this version of the domain does not have are left out."""
        if self._rule_nats is None:
            nats = np.zeros(self._trie.num_leaves, dtype=np.float32)
            for name, factors in self._rules.columns.items():
                if name in self._catalog.attribute_columns:
                    nats += _nats_of_column(self._columns.of(name), factors)
            leaves = self._trie.leaves_of_rows
            for item_id, factor in self._rules.items.items():
                row = self._catalog.row_of(item_id)
                if row is not None:
                    nats[leaves[row]] += math.log(factor)
            self._rule_nats = nats
        return self._rule_nats


def check_rules(rules: Factors, boosts: DomainBoosts, catalog: Catalog) -> None:
    """Raises UnknownColumnError, InputError and UnknownItemError for rules that a catalog does not understand."""
    boosts.check(rules.columns, "boosts")
    for item_id in rules.items:
        if catalog.row_of(item_id) is None:
            raise UnknownItemError(
                f"boosts.items: item {item_id!r} is not in the catalog; add it first, or leave it out",
                field=f"boosts.items.{item_id}",
            )


def _nats_of_column(column: LeafColumn, factors: Mapping[str, float]) -> NDArray[np.float32]:
    """Of all leaves, [N]."""
    by_number = np.zeros(len(column.numbers) + 1, dtype=np.float32)
    for text, factor in factors.items():
        try:
            number = column.numbers.get(value_of(column.kind, text, ""))
        except InputError:  # of a rule for another version's column
            continue
        if number is not None:
            by_number[number] = math.log(factor)
    return column.sums(by_number)

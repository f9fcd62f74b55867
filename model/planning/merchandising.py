"""What a query asks for beyond the model's ranking: boosts, and limits on how many items of a value it lists."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from model.decoding.eligibility import LeafMask
from model.decoding.leaf_boosts import MAX_NATS, Boosts
from model.decoding.leaf_groups import Limit
from model.degradation import Degradation
from model.errors import InputError
from model.planning.arguments import known_rows
from model.planning.boosts import NO_FACTORS, Factors, num_values, spec_of
from model.planning.domain import ServedDomain
from model.planning.queries import RankingQuery

MAX_BOOSTS = 1_000
"""Most boosted values of a request, and most boosted items."""
MAX_RULES = 10_000
"""The same of a domain's rules."""


def check_numbers(factors: Factors, limit: int, where: str) -> None:
    """Raises InputError for too many values or items."""
    for field, number in (("columns", num_values(factors)), ("items", len(factors.items))):
        if number > limit:
            what = "values" if field == "columns" else "items"
            raise InputError(
                f"{where}.{field} has factors of {number} {what}, the limit is {limit}; send fewer, or give the items "
                "a column with fewer values",
                field=f"{where}.{field}",
            )


def has_merchandising(domain: ServedDomain, query: RankingQuery) -> bool:
    """Whether anything but the model's ranking counts for a query."""
    has_rules = query.domain_boosts and bool(domain.rules)
    return has_rules or query.boost is not None or query.rotation is not None or bool(query.max_per)


def plan_boosts(domain: ServedDomain, query: RankingQuery, mask: LeafMask, notes: list[Degradation]) -> Boosts | None:
    """The query's boosts of the members of a mask, those of the domain included; None without any.

    Raises InputError kinds.
    """
    has_rules = query.domain_boosts and bool(domain.rules)
    lowered = {} if query.rotation is None else query.rotation.factors()
    if query.boost is None and not has_rules and not lowered:
        return None
    asked = NO_FACTORS if query.boost is None else query.boost
    check_numbers(asked, MAX_BOOSTS, "boost")
    domain.boosts.check(asked.columns, "boost")
    known_rows(domain, tuple(asked.items), "boost.items", notes)
    extra = _nats_of_leaves(domain, asked.items, lowered)
    leaves = sorted(extra)
    return Boosts(
        domain.boosts.table(spec_of(asked, has_rules=has_rules), mask),
        np.array(leaves, dtype=np.int32),
        np.array([extra[leaf] for leaf in leaves], dtype=np.float32).clip(-MAX_NATS, MAX_NATS),
    )


def plan_limits(domain: ServedDomain, query: RankingQuery) -> tuple[Limit, ...]:
    """Raises UnknownColumnError."""
    return tuple(domain.boosts.limit(column, most) for column, most in query.max_per.items())


def _nats_of_leaves(domain: ServedDomain, *factors: Mapping[str, float]) -> dict[int, float]:
    """Sums of logarithms for the items in the catalog."""
    nats: dict[int, float] = {}
    for each in factors:
        for item_id, factor in each.items():
            row = domain.catalog.row_of(item_id)
            if row is not None:
                leaf = int(domain.leaves_of_rows[row])
                nats[leaf] = nats.get(leaf, 0.0) + math.log(factor)
    return nats

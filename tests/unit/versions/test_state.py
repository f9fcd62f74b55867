"""A domain's state is what its entries make of it, whether they are read one by one or from a snapshot."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest

from model.bundle.changes import CatalogChanges
from model.planning.boosts import NO_FACTORS, BoostFactors
from service.versions.domains import hash_fraction
from service.versions.formats import decode_entry, decode_states, encode_entry, encode_states
from service.versions.journal import fold
from service.versions.state import (
    ENTRIES,
    MAX_IDEMPOTENCY_KEYS,
    STATES,
    AnyEntry,
    BoostsEntry,
    Canary,
    CatalogEntry,
    DomainState,
    Roles,
    States,
    apply_entry,
)
from tests.unit.versions.entries import FIRST, SECOND, THIRD, features_entry, roles_entry, stock_entry

CHANGES = CatalogChanges(
    active={"a": True},
    values={"a": {"price": 1.5, "sold": 3, "new": True, "title": None, "tags": ["x", 1.0]}},
    added=({"item_id": "n", "index": "5"},),
)
ENTRIES_OF_TOYS: tuple[AnyEntry, ...] = (
    roles_entry(1, Roles(stable=FIRST, loaded=SECOND)),
    stock_entry(2, "a", "b", key="k"),
    CatalogEntry("toys", 3, CHANGES),
    roles_entry(4, Roles(stable=FIRST, canary=Canary(SECOND, 0.25, "salt"), shadow=THIRD)),
    features_entry(5, a="AAAA"),
    features_entry(6, b="BBBB"),
)


def test_entries_add_up() -> None:
    state = reduce(apply_entry, ENTRIES_OF_TOYS, DomainState())
    assert (state.revision, state.catalog_revision) == (6, 4)
    assert state.roles.canary == Canary(SECOND, 0.25, "salt")
    assert state.changes.active == {"a": True, "b": False}
    assert state.changes.added == CHANGES.added
    assert state.features == {"vitb32/8": {"a": "AAAA", "b": "BBBB"}}
    assert (state.revision_of("k"), state.revision_of("other"), state.revision_of(None)) == (1, None, None)


def test_what_is_written_is_read_back_with_its_types() -> None:
    for entry in ENTRIES_OF_TOYS:
        assert ENTRIES.validate_json(ENTRIES.dump_json(entry)) == entry
    states = {"toys": reduce(apply_entry, ENTRIES_OF_TOYS, DomainState())}
    read = STATES.validate_json(STATES.dump_json(states))
    assert read == states
    assert list(map(type, read["toys"].changes.values["a"].values())) == [float, int, bool, type(None), list]


def test_a_snapshot_stands_for_the_entries_before_it() -> None:
    whole: States = reduce(fold, ENTRIES_OF_TOYS, {})
    half: States = reduce(fold, ENTRIES_OF_TOYS[:3], {})
    snapshot: States = STATES.validate_json(STATES.dump_json(dict(half)))
    assert reduce(fold, ENTRIES_OF_TOYS, snapshot) == whole


def test_boosts_replace_those_before_and_count_as_changes_of_the_catalog() -> None:
    rules = BoostFactors({"brand": {"Lego": 1.5}}, {"a": 2.0})
    earlier = BoostsEntry("toys", 2, BoostFactors(items={"b": 3.0}))
    entries: tuple[AnyEntry, ...] = (stock_entry(1, "a"), earlier, BoostsEntry("toys", 3, rules))
    states: States = reduce(fold, entries, {})
    assert (states["toys"].boosts, states["toys"].catalog_revision) == (rules, 3)
    assert states["toys"].changes.active == {"a": False}
    assert decode_states(encode_states(states)) == states
    assert [decode_entry(encode_entry(entry)) for entry in entries] == list(entries)
    assert fold(states, BoostsEntry("toys", 4, NO_FACTORS))["toys"].boosts == NO_FACTORS


def test_an_entry_that_was_there_before_changes_nothing() -> None:
    states: States = reduce(fold, ENTRIES_OF_TOYS, {})
    assert fold(states, stock_entry(6, "z")) is states


def test_a_domain_that_was_unloaded_begins_anew_when_it_is_loaded_again() -> None:
    state = reduce(apply_entry, (*ENTRIES_OF_TOYS, roles_entry(7, Roles())), DomainState())
    assert state == DomainState(has_roles=True, revision=7, catalog_revision=4)


def test_only_the_latest_keys_are_remembered() -> None:
    state = DomainState()
    for number in range(MAX_IDEMPOTENCY_KEYS + 1):
        state = apply_entry(state, stock_entry(number + 1, "a", key=str(number)))
    assert state.revision_of("0") is None
    assert state.revision_of("1") == 2


def test_a_swap_takes_a_version_out_of_its_other_roles() -> None:
    roles = Roles(stable=FIRST, previous=None, canary=Canary(SECOND, 0.5, "s"), shadow=THIRD)
    assert roles.swapped(SECOND) == Roles(stable=SECOND, previous=FIRST, shadow=THIRD)
    assert replace(roles, canary=None, loaded=THIRD).swapped(THIRD) == Roles(stable=THIRD, previous=FIRST)
    assert roles.refs == (FIRST, SECOND, THIRD)


@pytest.mark.parametrize("salt", ["", "salt", "long " * 50])
def test_users_are_spread_evenly(salt: str) -> None:
    places = [hash_fraction(f"user-{number}", salt) for number in range(4000)]
    for share in (0.01, 0.1, 0.5, 0.9):
        assert abs(sum(place < share for place in places) / 4000 - share) < 0.03


def test_another_salt_chooses_other_users() -> None:
    users = [f"user-{number}" for number in range(2000)]
    both = sum(hash_fraction(user, "a") < 0.5 and hash_fraction(user, "b") < 0.5 for user in users)
    assert 400 < both < 600

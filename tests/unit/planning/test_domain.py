from __future__ import annotations

import numpy as np
import pytest

from model.bundle.catalog import Catalog
from model.errors import InputError, UnknownColumnError
from model.planning.domain import ServedDomain
from tests.unit.planning.domains import eligible_numbers, tiny_domain


@pytest.fixture(scope="module")
def domain() -> ServedDomain:
    return tiny_domain()


@pytest.mark.parametrize(
    ("text", "rating", "explanation"),
    [
        ("4.0 , a fine toy", 4.0, "a fine toy"),
        ("4.0, a fine toy", 4.0, "a fine toy"),
        (" 5 ,it is , well , fine", 5.0, "it is , well , fine"),
        ("3.5 , two\nlines", 3.5, "two\nlines"),
        ("4.0 ,", 4.0, ""),
        ("a fine toy", None, "a fine toy"),
        ("4.0 a fine toy", None, "4.0 a fine toy"),
        ("-4.0 , a fine toy", None, "-4.0 , a fine toy"),
        ("4. , a fine toy", None, "4. , a fine toy"),
        ("", None, ""),
    ],
)
def test_a_rating_is_read_off_the_front_of_a_text(text: str, rating: float | None, explanation: str) -> None:
    assert ServedDomain.rated_text(text) == (rating, explanation)


def test_leaves_lead_back_to_the_rows_of_the_catalog() -> None:
    numbers = ("205", "9", "20", "31")  # in the order of their tokens: 9, 20, 205, 31
    catalog = Catalog.from_rows({"item_id": f"item-{number}", "index": number} for number in numbers)
    domain = tiny_domain(catalog=catalog)
    assert domain.rows_of(np.array([0, 1, 2, 3])).tolist() == [1, 2, 0, 3]
    assert domain.leaves_of_rows.tolist() == [2, 0, 1, 3]


def test_without_a_filter_the_active_items_are_eligible(domain: ServedDomain) -> None:
    assert _eligible(domain, {}) == set(range(1, 31)) - {10, 20, 30}


def test_a_filter_is_cut_with_the_active_items(domain: ServedDomain) -> None:
    assert _eligible(domain, {"tags": ("red",)}) == {5, 15, 25}
    assert _eligible(domain, {"price": (1.0, 2.5, 2)}) == {4, 8}


def test_requests_with_the_same_filter_share_one_mask(domain: ServedDomain) -> None:
    mask = domain.eligible({"category": ("dolls",), "tags": ("red",)})
    assert domain.eligible({"tags": ("red",), "category": ("dolls",)}) is mask
    assert domain.eligible({"category": ("dolls",)}) is not mask
    assert domain.eligible({}) is domain.eligible({})


def test_values_that_python_calls_equal_are_still_checked_by_type(domain: ServedDomain) -> None:
    assert _eligible(domain, {"price": (1,)}) == {4}
    with pytest.raises(InputError) as raised:
        domain.eligible({"price": (True,)})
    assert raised.value.field == "where.price"


def test_an_unknown_column_is_refused_naming_those_there_are(domain: ServedDomain) -> None:
    with pytest.raises(UnknownColumnError) as raised:
        domain.eligible({"colour": ("red",)})
    assert str(raised.value) == ("the catalog has no column 'colour' to filter by; choose from: category, price, tags")


def test_decoded_text_has_no_special_tokens(domain: ServedDomain) -> None:
    ids = [*domain.tokenizer.words("the toy"), domain.tokenizer.image_id, domain.tokenizer.eos_id, 0]
    assert domain.text_of(ids) == "the toy"


def _eligible(domain: ServedDomain, where: dict[str, tuple[str | int | float | bool, ...]]) -> set[int]:
    return eligible_numbers(domain, domain.eligible(where).is_member.tolist())

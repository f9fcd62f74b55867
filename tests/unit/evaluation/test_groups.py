"""Metrics by group, and the gaps between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import InputError
from model.evaluation.beyond_accuracy import BeyondAccuracy
from model.evaluation.gaps import LEAST_USERS, Groups, Questions, differences, group_gaps, largest_gap
from model.evaluation.groups import Grouping
from model.evaluation.held_out import HeldOut
from model.evaluation.metrics import Measured
from model.evaluation.options import EvaluationOptions
from model.evaluation.texts import ScoredText
from tests.tiny import tiny_catalog
from tests.unit.evaluation.datasets import toys_dataset
from tests.unit.planning.domains import tiny_domain

NUM_ITEMS = 12
TOYS = tiny_domain(catalog=tiny_catalog(NUM_ITEMS))  # row r is item-(r + 1), of a category by (r + 1) % 3


def questions(values: Sequence[float], codes: Sequence[int]) -> Questions:
    users = np.arange(len(values))
    return Questions(Measured.means({"hr@5": np.array(values, dtype=np.float64)}, users), np.array(codes))


def beyond(histories: Sequence[Sequence[int]], **options: object) -> BeyondAccuracy:
    data = toys_dataset(histories, num_items=NUM_ITEMS)
    held_out = HeldOut.of(data, TOYS, EvaluationOptions(**options))  # type: ignore[arg-type]  # options of each test
    return BeyondAccuracy.of(held_out, TOYS, None)


def table(folder: Path, **columns: Sequence[object]) -> str:
    path = folder / "users.parquet"
    pq.write_table(pa.table(dict(columns)), path)
    return str(path)


def by_value(groups: Groups | None, metric: str) -> Mapping[str, float]:
    assert groups is not None
    return {group.value: group.metrics[metric].value for group in groups.groups}


def test_questions_belong_to_the_group_of_the_item_that_was_bought() -> None:
    measured = beyond([[1, 2, 0], [1, 2, 3], [1, 0, 2]], groups="category")  # items 1 and 4: games; 3: dolls
    lists = [np.array([0, 5]), np.array([5, 1, 3]), np.array([5])]
    _, groups = measured.of_lists(np.arange(3), lists, np.array([1, 3, 0]))
    assert groups is not None
    assert [(each.value, each.num_questions) for each in groups.groups] == [("dolls", 1), ("games", 2)]
    assert by_value(groups, "hr@5") == {"dolls": 0, "games": 1}
    assert by_value(groups, "mrr@10") == {"dolls": 0, "games": pytest.approx((1 + 1 / 3) / 2)}
    assert by_value(groups, "coverage@10") == {"dolls": 1 / 11, "games": 4 / 11}
    assert groups.gaps == ()  # groups of so few users are not compared
    assert groups.largest is None


def test_users_are_grouped_by_a_table_and_some_have_no_value(tmp_path: Path) -> None:
    path = table(tmp_path, user_id=["u3", "u1", "u9"], age=["young", "old", "old"])
    measured = beyond([[1, 2, 0], [1, 2, 3], [1, 0, 2]], groups="age", groups_table=path)
    _, groups = measured.of_lists(np.arange(3), [np.array([0])] * 3, np.array([1, 0, 0]))
    assert groups is not None
    assert by_value(groups, "hr@1") == {"old": 1, "young": 0}
    assert groups.num_without_value == 1


def test_many_numbers_are_split_into_four_parts(tmp_path: Path) -> None:
    ages = np.arange(40) / 2
    data = toys_dataset([[1, 2, 3]] * 40)
    path = table(tmp_path, user_id=[f"u{n}" for n in range(1, 41)], age=ages.tolist())
    grouping = Grouping.of(data, "age", path)
    assert grouping.values == ("up to 4.875", "over 4.875 to 9.75", "over 9.75 to 14.625", "over 14.625")
    assert np.bincount(grouping.codes).tolist() == [10, 10, 10, 10]
    assert (np.diff(grouping.codes) >= 0).all()


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        ("colour", "the items of toys have no column 'colour'; choose from category, price, tags, or give a table"),
        ("tags", "column tags has type list<.*>; groups need a column with one value"),
    ],
)
def test_columns_that_make_no_groups_are_named(column: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Grouping.of(toys_dataset(), column, None)


def test_tables_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has none of the users of toys, such as u1; check its user_id"):
        Grouping.of(toys_dataset(), "age", table(tmp_path, user_id=["x"], age=["old"]))
    with pytest.raises(InputError, match=r"has no column 'age'; it has user_id, and needs user_id and age"):
        Grouping.of(toys_dataset(), "age", table(tmp_path, user_id=["u1"]))
    with pytest.raises(InputError, match="column age has 1 values; choose one with 2 to 20"):
        Grouping.of(toys_dataset(), "age", table(tmp_path, user_id=["u1", "u2"], age=["old", "old"]))
    with pytest.raises(InputError, match="no column of it is named; set groups"):
        EvaluationOptions(groups_table="users.parquet")


def test_the_gap_is_between_the_groups_that_differ_most() -> None:
    rng = np.random.default_rng(0)
    shares = np.repeat([0.2, 0.8, 0.5], 100)
    own = questions((rng.random(300) < shares).tolist(), np.repeat([0, 1, 2], 100).tolist())
    (gap,) = group_gaps([own], ("low", "high", "middle"), seed=0)
    assert (gap.metric, gap.higher, gap.lower) == ("hr@5", "high", "low")
    means = [own.of(code).values()["hr@5"] for code in (0, 1)]
    assert gap.difference.value == pytest.approx(means[1] - means[0])
    assert gap.share == pytest.approx(1 - means[0] / means[1])
    # The interval of a difference of two independent shares, by the normal distribution.
    spread = 1.96 * np.sqrt(sum(mean * (1 - mean) / 100 for mean in means))
    assert gap.difference.low == pytest.approx(gap.difference.value - spread, abs=0.03)
    assert gap.difference.high == pytest.approx(gap.difference.value + spread, abs=0.03)
    assert largest_gap([gap]) == gap


def test_a_gap_that_may_be_chance_is_not_the_largest() -> None:
    own = questions([1, 0] * 10 + [1, 1, 0, 0, 0] * 4, [0] * 20 + [1] * 20)
    (gap,) = group_gaps([own], ("one", "other"), seed=0)
    assert gap.difference.low < 0 < gap.difference.high
    assert largest_gap([gap]) is None


def test_small_groups_are_not_compared() -> None:
    few = LEAST_USERS - 1
    own = questions([1.0] * few + [0.0] * 30, [0] * few + [1] * 30)
    assert group_gaps([own], ("few", "many"), seed=0) == ()


def test_a_user_in_both_groups_is_drawn_once_for_both() -> None:
    users, values = np.arange(40), np.random.default_rng(1).random(40)
    one, other = (Measured.means({"mae": values + more}, users) for more in (0.25, 0.0))
    assert differences(one, other, seed=0)["mae"] == pytest.approx(0.25)


def test_texts_are_grouped_by_the_item_that_they_are_about() -> None:
    measured = beyond([[1, 2, 0], [1, 2, 3], [1, 0, 2]], groups="category")
    texts = [
        ScoredText(0, "a fine toy", "a fine toy", 4.0, 5.0),
        ScoredText(1, "another", "a fine toy", None, 5.0),
        ScoredText(0, "a", "a fine toy", 3.0, 3.0),
    ]
    groups = measured.of_texts(texts, [0, 2, 3])
    assert by_value(groups, "rouge-l") == {"dolls": 0, "games": pytest.approx((100 + 50) / 2)}
    assert groups is not None
    dolls, games = groups.groups
    assert "mae" not in dolls.metrics  # no text of theirs begins with a rating
    assert games.metrics["mae"].value == pytest.approx(0.5)
    assert (games.num_users, games.num_questions) == (1, 2)

from __future__ import annotations

from pathlib import Path

import pytest

from model.bundle.users import User, Users
from tests.unit.bundle.refusals import refused

USERS = Users.from_rows(
    [{"user_id": "u1", "index": 5, "name": "Ann Lee"}, {"user_id": "u2", "index": 6}, {"user_id": "x", "index": 6}]
)


def test_users_come_back_as_they_were_given(tmp_path: Path) -> None:
    USERS.write(tmp_path / "users.parquet")
    users = Users.read(tmp_path / "users.parquet")
    assert len(users) == 3
    rows = [users.row_of(user_id) for user_id in ("u1", "u2", "u3")]
    assert rows == [0, 1, None]
    assert (users.index(0), users.name(0)) == ("5", "Ann Lee")
    assert (users.index(1), users.name(1)) == ("6", None)


def test_searching_finds_names_and_ids_page_by_page() -> None:
    assert USERS.search("LEE", 0, 10) == ([User("u1", "5", "Ann Lee")], 1)
    assert USERS.search("u", 1, 1) == ([User("u2", "6", None)], 2)
    assert USERS.search("", 2, 5) == ([User("x", "6", None)], 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"user_id": "a", "index": "1"}] * 2, "the users' table: user_id 'a' occurs in 2 rows"),
        ([{"user_id": "a"}], "the users' table has no column index"),
        ([{"user_id": "a", "index": "1", "email": "e"}], "the users' table has unknown columns email"),
        ([{"user_id": "a", "index": "1", "name": 1.5}], "column name has type double; it must be strings"),
    ],
)
def test_a_table_of_users_that_breaks_a_rule_is_refused(rows: list[dict[str, object]], message: str) -> None:
    with refused("invalid_catalog", message):
        Users.from_rows(rows)

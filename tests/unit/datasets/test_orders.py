"""Tables of orders as shops export them."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.datasets.dataset import Dataset
from model.datasets.faults import Faults
from model.datasets.orders import OrdersSource, read_orders
from tests.commands import run
from tests.unit.bundle.refusals import refused
from tests.unit.datasets.sources import write_feature, write_json_lines, write_lines

GOOD = ["user_id,item_id,timestamp,rating", "ann,007,30,5", "bob,7,10,", "ann,0108775015,20,3.5"]
START = 1_600_000_000


def read(files: OrdersSource, faults: Faults | None = None) -> Dataset:
    return read_orders(files, "shop", faults or Faults())


def orders_of(dataset: Dataset) -> dict[str, list[tuple[str, int]]]:
    """Item ids and times by user id."""
    users: list[str] = dataset.users.table["user_id"].to_pylist()  # type: ignore[assignment]  # ids are never null
    found: dict[str, list[tuple[str, int]]] = {}
    assert dataset.sequences.timestamps is not None
    for row, user in enumerate(users):
        start, end = dataset.sequences.offsets[row : row + 2]
        items = (dataset.catalog.item_ids[item] for item in dataset.sequences.items[start:end])
        found[user] = list(zip(items, dataset.sequences.timestamps[start:end].tolist(), strict=True))
    return found


def test_orders_become_histories_by_time_and_ids_stay_texts(tmp_path: Path) -> None:
    faults = Faults()
    dataset = read(OrdersSource(write_lines(tmp_path / "o.csv", GOOD)), faults)
    assert orders_of(dataset) == {"ann": [("0108775015", 20), ("007", 30)], "bob": [("7", 10)]}
    assert [(review.split, review.star_rating) for review in dataset.reviews] == [("val", 3.5), ("test", 5.0)]
    assert dataset.catalog.indices == ("1", "2", "3")
    assert (dataset.provenance.source, dataset.provenance.indexing) == ("orders", "sequential")
    assert faults.counts == {}


def encoded(text: str, form: str) -> bytes:
    """The text as programs save it."""
    if form == "excel":
        return b"\xef\xbb\xbf" + text.replace(",", ";").replace("\n", "\r\n").encode()
    if form == "sep":
        return b"sep=;\r\n" + text.replace(",", ";").replace("\n", "\r\n").encode()
    if form == "quoted":
        return "\n".join(",".join(f'"{value}"' for value in line.split(",")) for line in text.split("\n")).encode()
    if form == "pandas":
        return "\n".join(f"{n - 1 if n else ''},{line}" for n, line in enumerate(text.split("\n"))).encode()
    if form == "names":
        return (
            text.replace("user_id", "User ID").replace("item_id", "ITEM-ID").replace("timestamp", "TimeStamp").encode()
        )
    separators = {"tabs": ("\t", "\n"), "pipes": ("|", "\n"), "mac": (",", "\r"), "trailing": (",", ",\n")}
    delimiter, end = separators.get(form, (",", "\n"))
    return text.replace(",", delimiter).replace("\n", end).encode()


@pytest.mark.parametrize(
    "form", ["plain", "excel", "sep", "quoted", "pandas", "names", "tabs", "pipes", "mac", "trailing"]
)
@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "packed.csv"])
def test_every_form_of_csv_is_read_alike(tmp_path: Path, form: str, name: str) -> None:
    content = encoded("\n".join(GOOD), form)
    path = tmp_path / name
    path.write_bytes(content if name == "o.csv" else gzip.compress(content))
    faults = Faults()
    dataset = read(OrdersSource(path), faults)
    assert orders_of(dataset) == {"ann": [("0108775015", 20), ("007", 30)], "bob": [("7", 10)]}
    assert faults.counts == {}


def test_columns_may_have_any_order_and_quotes_may_have_delimiters_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(b'note,timestamp,item_id,user_id\n"a, ""b""\nc",1,"x,y",u\n\n,2,z,u\n')
    faults = Faults()
    assert orders_of(read(OrdersSource(path), faults)) == {"u": [("x,y", 1), ("z", 2)]}
    assert faults.counts == {}
    assert faults.notices[0] == "o.csv: 'note' is not read"


def test_broken_lines_are_counted_and_named_and_take_no_other_along(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(
        b"user_id,item_id,timestamp\nu,a,1\nu,b\nu,b,3,4\n,b,4\nu,,5\nu,c,soon\nu,c,\nu,\xfc,8\n"
        b'u,"c,9\nu,c,10\nu,a,1\n"u"x,c,11\n'
    )
    faults = Faults()
    assert orders_of(read(OrdersSource(path), faults)) == {"u": [("a", 1), ("c", 10)]}
    assert faults.places == {
        "the line has another number of values than the header": ["o.csv:3", "o.csv:4"],
        "the line has no user_id, or no item_id": ["o.csv:5", "o.csv:6"],
        "timestamp is not a time": ["o.csv:7: 'soon'", "o.csv:8: ''"],
        "the line is not UTF-8; save the file as UTF-8": ["o.csv:9"],
        "the line's quotes are not closed": ["o.csv:10", "o.csv:13"],
        "the line repeats user, item and time of an earlier one": ["o.csv:12"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "o.csv is empty; it must have a header and lines"),
        (b"\n\n", "o.csv is empty; it must have a header and lines"),
        (b"user_id,item_id,timestamp\n", "o.csv has no line with user_id, item_id and timestamp: there is no line"),
        (b"user_id,item_id,timestamp\na,b,?\n", "timestamp: 1 left out: timestamp is not a time (o.csv:2: '?')"),
        (b"a,b,1\nc,d,2\n", "o.csv lacks the columns user_id and item_id and timestamp; its columns are 'a', 'b', '1'"),
        (
            b"customer_id,sku,t_dat\na,b,1\n",
            "'customer_id' may be meant for 'user_id', 'sku' may be meant for 'item_id', 't_dat' may be meant for",
        ),
        (b"user_id,itm_id,timestamp\na,b,1\n", "o.csv lacks the column item_id; its columns are 'user_id', 'itm_id'"),
        (b"user_id,itm_id,timestamp\na,b,1\n", "'itm_id' may be meant for 'item_id': rename the columns"),
        (b"user_id,item_id,timestamp,Item ID\na,b,1,c\n", "o.csv has two columns item_id, 'item_id' and 'Item ID'"),
        ("user_id,item_id,timestamp\na,b,1\n".encode("utf-16"), "o.csv is in UTF-16; save it as UTF-8"),
        ("user_id,item_id,timestamp\na,b,1\n".encode("utf-16-le"), "o.csv is in UTF-16; save it as UTF-8"),
        ("user_id,item_id,timestamp\na,b,1\n".encode("utf-32"), "o.csv is in UTF-32; save it as UTF-8"),
        (b"PK\x03\x04 and more", "o.csv is an archive or a workbook; unpack it, or save the sheet as CSV"),
    ],
)
def test_a_file_without_a_good_line_is_refused_with_the_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(content)
    with refused("invalid_dataset", message):
        read(OrdersSource(path))


def test_blank_lines_and_rows_are_skipped(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "o.csv", ["", "user_id;item_id;timestamp", "u;a;1", ";;", "", '"";;', "u;b;2"])
    faults = Faults()
    assert orders_of(read(OrdersSource(path), faults)) == {"u": [("a", 1), ("b", 2)]}
    assert faults.counts == {}


def test_ids_that_a_spreadsheet_shortened_and_values_beyond_all_bounds_are_counted(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp", "u,a,1", "u,1.08775E+08,2", f"u,{'x' * 200_000},3", "1e5,b,4"]
    faults = Faults()
    found = orders_of(read(OrdersSource(write_lines(tmp_path / "o.csv", lines)), faults))
    assert found == {"u": [("a", 1)], "1e5": [("b", 4)]}
    assert list(faults.counts.values()) == [1, 1]
    assert list(faults.places.values()) == [["o.csv:3"], ["o.csv:4"]]


def test_explanations_may_be_a_table_with_the_names_of_orders(tmp_path: Path) -> None:
    orders = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp,rating", "u,a,1,5", "u,b,2,"])
    explanations = write_lines(tmp_path / "e.csv", ["user_id;item_id;explanation", "u;b;fine"])
    dataset = read(OrdersSource(orders, explanations=(explanations,)))
    assert [(review.item, review.split, review.explanation) for review in dataset.reviews] == [
        (1, "test", "fine"),
        (0, "val", None),
    ]
    wrong = write_lines(tmp_path / "w.csv", ["user_id;item_id;text", "u;b;fine"])
    with refused("invalid_dataset", "w.csv lacks the column explanation"):
        read(OrdersSource(orders, explanations=(wrong,)))


def table(**columns: object) -> pa.Table:
    ids = {"user_id": ["u", "u", "u"], "item_id": ["c", "a", "b"]}
    times = {"timestamp": [START + 2, START, START + 1]}
    return pa.table({**ids, **times, **columns})


MOMENTS = [datetime.fromtimestamp(START + second, UTC) for second in (2, 0, 1)]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([START + second for second in (2, 0, 1)]),
        pa.array([START + second for second in (2.0, 0.0, 1.0)]),
        pa.array([1000 * (START + second) for second in (2, 0, 1)]),
        pa.array([10**6 * (START + second) for second in (2, 0, 1)]),
        pa.array([10**9 * (START + second) for second in (2, 0, 1)]),
        pa.array([str(1000 * (START + second)) for second in (2, 0, 1)]),
        pa.array([moment.isoformat() for moment in MOMENTS]),
        pa.array([moment.strftime("%Y-%m-%d %H:%M:%S UTC") for moment in MOMENTS]),
        pa.array([moment.strftime("%d.%m.%Y %H:%M:%S") for moment in MOMENTS]),
        pa.array([moment.strftime("%Y/%m/%d %H:%M:%S") for moment in MOMENTS]),
        pa.array([Decimal(START + second) for second in (2, 0, 1)]),
        *(
            pa.array([moment.replace(tzinfo=None) for moment in MOMENTS], pa.timestamp(unit))
            for unit in ("s", "ms", "us")
        ),
        pa.array([10**9 * (START + second) + 7 for second in (2, 0, 1)]).cast(pa.timestamp("ns", "Europe/Berlin")),
        pa.array(MOMENTS, pa.timestamp("ms", "UTC")).dictionary_encode(),
    ],
    ids=lambda array: f"{array.type} {array[0]}",
)
def test_parquet_times_of_every_type_are_the_same(tmp_path: Path, times: pa.Array) -> None:  # type: ignore[type-arg]
    pq.write_table(table(timestamp=times), tmp_path / "o.parquet")
    faults = Faults()
    found = orders_of(read(OrdersSource(tmp_path / "o.parquet"), faults))
    assert found == {"u": [("a", START), ("b", START + 1), ("c", START + 2)]}
    assert faults.counts == {}
    assert "2020-09-13" in faults.notices[0]


@pytest.mark.parametrize(
    "days",
    [
        pa.array([date(2021, 1, day) for day in (3, 1, 2)]),
        pa.array([f"2021-01-0{day}" for day in (3, 1, 2)]),
        pa.array([20210100 + day for day in (3, 1, 2)]),
        pa.array([f"{day}.1.2021" for day in (3, 1, 2)]),
        pa.array([f"2021-1-{day}" for day in (3, 1, 2)]),
    ],
    ids=lambda array: str(array.type),
)
def test_dates_are_read_and_named(tmp_path: Path, days: pa.Array) -> None:  # type: ignore[type-arg]
    pq.write_table(table(timestamp=days), tmp_path / "o.parquet")
    faults = Faults()
    found = orders_of(read(OrdersSource(tmp_path / "o.parquet"), faults))
    assert found == {"u": [(item, 1609459200 + 86400 * place) for place, item in enumerate("abc")]}
    assert "dates" in faults.notices[0]
    assert faults.notices[0].endswith("2021-01-01 to 2021-01-03")


def test_parquet_ids_of_any_type_are_texts(tmp_path: Path) -> None:
    columns = {"item_id": pa.array(["007", "7", "a"]).dictionary_encode(), "user_id": pa.array([1.0, 1.0, 2.0])}
    pq.write_table(table(**columns), tmp_path / "o.parquet")
    assert {
        user: [item for item, _ in items]
        for user, items in orders_of(read(OrdersSource(tmp_path / "o.parquet"))).items()
    } == {
        "1": ["7", "007"],
        "2": ["a"],
    }


def test_numbers_that_may_have_lost_their_zeros_are_refused(tmp_path: Path) -> None:
    pq.write_table(table(item_id=pa.array([7, 8, 9])), tmp_path / "o.parquet")
    items = write_lines(tmp_path / "i.csv", ["item_id,title", "007,bond", "8,eight"])
    with refused("invalid_dataset", "o.parquet:1: the id 7 is stored as a number and may stand for '007'"):
        read(OrdersSource(tmp_path / "o.parquet", items))


@pytest.mark.parametrize("times", [(START, 1000 * START), (START, 20210105)])
def test_times_of_two_units_are_refused_naming_both(tmp_path: Path, times: tuple[int, int]) -> None:
    lines = [f"u,{place},{time}" for place, time in enumerate(times)]
    path = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp", *lines])
    with refused("invalid_dataset", f"o.csv: timestamp has numbers of 2 units: seconds in line 2 ({START}), "):
        read(OrdersSource(path))


def test_a_number_that_is_no_time_of_the_columns_unit_is_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp", f"u,a,{START * 1000}", "u,b,0", "u,c,1e300"])
    faults = Faults()
    assert orders_of(read(OrdersSource(path), faults)) == {"u": [("a", START)]}
    assert faults.places == {"timestamp is not a time": ["o.csv:3", "o.csv:4"]}


def test_days_that_may_be_months_are_no_times(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp", "u,a,2021-01-02", "u,b,01/02/2021"])
    faults = Faults()
    read(OrdersSource(path), faults)
    assert faults.places == {"timestamp is not a time": ["o.csv:3: '01/02/2021'"]}


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_items_are_described_by_any_kind_of_table(tmp_path: Path, form: str) -> None:
    orders = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp", "u,007,1", "u,8,2"])
    records = [
        {"item_id": "new", "title": "New", "price": "$4.99", "category": "Hats", "categories": '["Men", "Hats"]'},
        {"item_id": "007", "title": "Bond", "price": "1,5 €", "category": "Vests", "categories": ""},
    ]
    path = tmp_path / f"i.{form}"
    if form == "csv":
        write_lines(path, ["item_id;title;price;category;categories"])
        write_lines(path, [";".join(records[0]), *(";".join(_quoted(value) for value in r.values()) for r in records)])
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        write_json_lines(path, records)
    faults = Faults()
    dataset = read(OrdersSource(orders, path), faults)
    assert dataset.catalog.item_ids == ("007", "8", "new")
    assert dataset.catalog.titles == ("Bond", None, "New")
    assert [dataset.catalog.attributes(row)["price"] for row in range(3)] == [1.5, None, 4.99]
    assert dataset.catalog.attributes(2)["categories"] == ("Men", "Hats")
    assert faults.counts == {}
    assert f"1 of 2 items have a line in i.{form}, 1 does not: '8'; 1 line matches no order: 'new'" in faults.notices


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_wrong_name_for_the_id_of_items_is_refused(tmp_path: Path, form: str) -> None:
    orders = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp", "u,a,1"])
    if form == "csv":
        items = write_lines(tmp_path / "i.csv", ["sku,title", "a,A"])
    else:
        items = write_json_lines(tmp_path / "i.jsonl", [{"sku": "a", "title": "A"}])
    with refused("invalid_dataset", "'sku' may be meant for 'item_id'"):
        read(OrdersSource(orders, items))


def test_items_of_other_ids_are_refused(tmp_path: Path) -> None:
    orders = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp", "u,a,1"])
    items = write_lines(tmp_path / "i.csv", ["item_id,title", "x,A"])
    with refused("invalid_dataset", "i.csv has no line of a known item: it has 'x', and the items are named like 'a'"):
        read(OrdersSource(orders, items))


def test_names_that_are_not_read_are_told_with_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp,stars,order", f"u,a,{START},5,1"])
    items = write_lines(tmp_path / "i.csv", ["item_id,name,Colour", "a,A,red"])
    write_feature(tmp_path / "features" / "a.npy", 1)
    options = ("--orders", orders, "--items", items, "--features", tmp_path / "features", "--out", tmp_path / "out")
    assert run("data", "prepare", "orders", *options) == 0
    rename = "rename the columns that are to be read"
    assert capsys.readouterr().err.splitlines() == [
        f"o.csv: 'stars', 'order' are not read; 'stars' may be meant for 'rating': {rename}",
        "o.csv: timestamp has seconds, 2020-09-13 to 2020-09-13",
        f"i.csv: 'name', 'Colour' are not read; 'name' may be meant for 'title': {rename}",
        "1 of 1 items have a line in i.csv",
        "1 of 1 items have an embedding",
    ]
    assert Dataset.read(tmp_path / "out").provenance.source == "orders"


def test_the_core_is_filtered(tmp_path: Path) -> None:
    lines = [f"u{user},i{item},{user}" for user in range(3) for item in range(user + 1)]
    path = write_lines(tmp_path / "o.csv", ["user_id,item_id,timestamp", *lines])
    assert orders_of(read(OrdersSource(path, core=2))).keys() == {"u1", "u2"}
    with refused("invalid_dataset", "the 3-core is empty: no orders remain where each user and item has 3"):
        read(OrdersSource(path, core=3))


def test_an_id_of_an_unexpected_type_is_named_with_its_value(tmp_path: Path) -> None:
    line = {"user_id": "ann", "item_id": "a", "timestamp": START}
    others: list[dict[str, object]] = [{"item_id": True}, {"user_id": ["a", "b"]}, {"item_id": 2.5}, {"item_id": " "}]
    others.append({"item_id": "half \ud83d"})
    faults = Faults()
    read(OrdersSource(write_json_lines(tmp_path / "o.jsonl", [line, *({**line, **other} for other in others)])), faults)
    assert faults.places == {
        "item_id is not an id": ["o.jsonl:2: True", "o.jsonl:4: 2.5", "o.jsonl:6: 'half \\ud83d'"],
        "user_id is not an id": ["o.jsonl:3: ['a', 'b']"],
        "the line has no user_id, or no item_id": ["o.jsonl:5"],
    }


@pytest.mark.parametrize("shortened", ["1.08775E+08", "1,1E+08", "1E+08"])
def test_ids_that_a_spreadsheet_shortened_are_left_out(tmp_path: Path, shortened: str) -> None:
    faults = Faults()
    lines = [*GOOD, f'ann,"{shortened}",30,5']
    assert "0108775015" in read(OrdersSource(write_lines(tmp_path / "o.csv", lines)), faults).catalog.item_ids
    assert list(faults.counts.values()) == [1]


def test_ids_that_programs_write_for_missing_ones_are_named(tmp_path: Path) -> None:
    faults = Faults()
    lines = [GOOD[0], "nan,a,10,", "nan,b,11,", "ann,a,12,", "ann,None,13,"]
    read(OrdersSource(write_lines(tmp_path / "o.csv", lines)), faults)
    end = "and read as any other; if it stands for a missing value, remove it there"
    assert faults.notices[:2] == [
        f"o.csv: 'nan' is the user_id of 2 lines, {end}",
        f"o.csv: 'None' is the item_id of 1 line, {end}",
    ]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([START, 1 << 45], pa.timestamp("ms")),
        pa.array([START, 1 << 50], pa.timestamp("ms")),
        pa.array([18_000, 1 << 25], pa.date32()),
    ],
)
def test_a_time_of_parquet_that_python_cannot_hold_is_a_fault(
    tmp_path: Path,
    times: pa.Array,  # type: ignore[type-arg]
) -> None:
    pq.write_table(
        pa.table({"user_id": ["ann", "ann"], "item_id": ["a", "b"], "timestamp": times}), tmp_path / "o.parquet"
    )
    faults = Faults()
    read(OrdersSource(tmp_path / "o.parquet"), faults)
    assert sum(faults.counts.values()) == (0 if times[1].value == 1 << 45 else 1)

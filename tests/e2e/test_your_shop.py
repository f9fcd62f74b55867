"""Every command of examples/your-shop, on a smaller shop: from tables to a new item that is recommended."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest

from demo.your_shop import NUM_NEW, write_tables
from model.evaluation.report import Report
from model.training.config import read_run
from tests.conftest import ROOT
from tests.e2e.pasted import blocks_of, paste
from tests.e2e.processes import serving

EXAMPLE = ROOT / "examples" / "your-shop"
README = EXAMPLE / "README.md"
FILES, ENCODE, PREPARE, INDEX, TRAIN, MEASURE, SERVE, ASK, BODY, ADD = blocks_of(README)
SHORTER = {
    "steps = 2400": "steps = 8",
    "batch_size = 64": "batch_size = 8",
    "validate_every = 600": "validate_every = 8",
}
TOKEN = "change-me-to-32-random-bytes"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that looks as the sources do to the commands."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bundle-clip").symlink_to(ROOT / "demo" / "bundle-clip")
    run = (EXAMPLE / "run.toml").read_text(encoding="utf-8")
    for long, short in SHORTER.items():
        assert long in run
        run = run.replace(long, short)
    (tmp_path / "examples" / "your-shop").mkdir(parents=True)
    (tmp_path / "examples" / "your-shop" / "run.toml").write_text(run)
    return tmp_path


def test_the_readme_can_be_pasted_from_tables_to_a_new_item_that_is_recommended(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.chdir(place):
        paste(FILES[0], "--customers", "60")
        paste(ENCODE[0], "--workers", "0")
        for line in (*PREPARE, *INDEX, *TRAIN, *MEASURE):
            paste(line)
        told = capsys.readouterr()
        assert "144 of 144 items have an embedding" in told.err
        assert "of a held-out tenth of the items are on paths of the others" in told.out
        names = [result.name for result in Report.read(place / "data" / "your-shop" / "result.json").results]
        assert names == ["A-3", "random", "popularity", "co-occurrence"]

        copy, serve = SERVE
        paste(copy)
        assert serve == f"VIP5_ADMIN_TOKEN={TOKEN} .venv/bin/vip5 serve --bundle bundles/your-shop"
        paste(BODY[0], "--workers", "0")
        paste(BODY[1])
        with serving(place / "bundles" / "your-shop", {"VIP5_ADMIN_TOKEN": TOKEN}) as server:
            first = json.loads(paste(ASK[0], url=server.url))
            assert len(first["items"]) == 5
            assert first["degraded"] == []
            assert all(item["because"] for item in first["items"])
            added = [json.loads(paste(line, url=server.url) or "{}") for line in ADD][-1]["indices"]
            assert len(added) == NUM_NEW
            among = f'"k": {NUM_NEW}, "include_items": {json.dumps(list(added))}'
            second = json.loads(paste(ASK[0].replace('"k": 5', among), url=server.url))
            assert {item["item_id"] for item in second["items"]} == added.keys()
            assert second["degraded"] == []
            with server.client() as client:
                pictures = [client.get(f"/domains/shop/items/{item_id}/image").status_code for item_id in added]
            assert set(pictures) == {200}


def test_the_first_lines_are_those_that_the_readme_shows(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([\w-]+\.csv)` \| `(.*)` <br> `(.*)` \|$", text, re.MULTILINE)
    assert [name for name, *_ in shown] == ["orders.csv", "items.csv", "reviews.csv"]
    write_tables(tmp_path, 2000)
    for name, *lines in shown:
        assert (tmp_path / name).read_text().splitlines()[:2] == lines
    orders = (tmp_path / "orders.csv").read_text().splitlines()[1:]
    bought = {line.split(",")[1] for line in orders}
    assert f"customers bought {len(orders):,} things of {len(bought)}." in text
    described = {line.split(",")[0] for line in (tmp_path / "items.csv").read_text().splitlines()[1:]}
    new = {line.split(",")[0] for line in (tmp_path / "new-items.csv").read_text().splitlines()[1:]}
    assert bought == described
    assert len(new) == NUM_NEW
    assert not new & described


def test_the_run_file_starts_from_scratch_and_draws_last_codes() -> None:
    file = read_run(EXAMPLE / "run.toml").file
    assert (file.tune, file.prompts.last_codes) == ("from_scratch", "drawn")

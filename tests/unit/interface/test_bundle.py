"""`vip5`, the Python interface, on the demonstration."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import vip5
from model.datasets.dataset import Dataset
from model.errors import IntegrityError, UnknownDomainError, UnknownItemError
from model.evaluation.evaluation import evaluate
from model.planning.runtime import load_runtime
from service.schemas.explanation import ExplanationRequest
from service.schemas.ranking import SequentialRequest
from tests.conftest import ROOT

DEMONSTRATION = ROOT / "demo" / "bundle"
HELD_OUT = ROOT / "demo" / "bundle-held-out" / "garments"
HISTORY = ["garment-0168", "garment-0110", "garment-0163"]


@pytest.fixture(scope="module")
def bundle() -> Iterator[vip5.Bundle]:
    with vip5.open_bundle(DEMONSTRATION, num_threads=1) as opened:
        yield opened


@pytest.fixture
def garments(bundle: vip5.Bundle) -> vip5.Domain:
    return bundle["garments"]


def test_answers_are_those_that_the_readme_shows(garments: vip5.Domain) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r'"rank": \d, "item_id": "([\w-]+)", "score": (-[\d.]+)', readme)
    where = {"category": ["tops", "dresses"]}
    answer = garments.recommend(HISTORY, k=2, user_id="user-30088", where=where)
    assert [item.item_id for item in answer.items] == [item_id for item_id, _ in shown]
    assert [item.score for item in answer.items] == pytest.approx([float(score) for _, score in shown], abs=1e-3)
    assert answer.exact_prefix == 2
    sentence = garments.explain("garment-0075", user_id="user-30088", feature="pattern", star_rating=5)
    assert f"the `text` “{sentence.text}”" in readme


def test_a_bundle_is_a_mapping_of_its_domains(bundle: vip5.Bundle) -> None:
    assert list(bundle) == ["garments", "toys"]
    assert "toys" in bundle
    assert "books" not in bundle
    assert repr(bundle) == f"<bundle {bundle.hash[:12]}: garments, toys>"
    assert repr(bundle["toys"]) == "<domain toys: 216 items>"
    with pytest.raises(UnknownDomainError, match="no domain 'books'; it has garments, toys"):
        bundle["books"]
    assert bundle.get("books") is None
    assert bundle.get("books", "none") == "none"
    assert bundle.get("toys") is bundle["toys"]


def test_an_item_has_its_columns_and_its_identifier(garments: vip5.Domain) -> None:
    item = garments.item("garment-0075")
    assert (item["title"], item["colour"], item["image"]) == ("Tusan dress", "pink", "garments/garment-0075.webp")
    assert item["index"] == garments.catalog.indices[garments.catalog.item_ids.index("garment-0075")]
    with pytest.raises(UnknownItemError, match="no item 'hat'"):
        garments.item("hat")


def test_mistakes_name_every_field_and_the_rule(garments: vip5.Domain) -> None:
    with pytest.raises(vip5.InputError, match=r"k: Input should be .* 100, not 500; history: .* at least 1 item"):
        garments.recommend([], k=500)
    with pytest.raises(vip5.InputError, match=r"star_rating: Input should be .* 5, not 6"):
        garments.explain("garment-0075", star_rating=6)
    with pytest.raises(vip5.InputError, match="no column 'colours' to filter by"):
        garments.recommend(HISTORY, where={"colours": "pink"})


def test_a_text_is_no_list_of_its_letters(garments: vip5.Domain) -> None:
    with pytest.raises(vip5.InputError, match=r"^history: Input should be a valid list, not 'garment-0168'$"):
        garments.recommend("garment-0168")
    with pytest.raises(vip5.InputError, match=r"^history: .* not 168$"):
        garments.recommend(168)  # type: ignore[arg-type]
    for name in ("tasks", "templates", "baselines"):
        with pytest.raises(vip5.InputError, match=rf"^{name} is the text 'A-3'; give a tuple of names, \('A-3',\)$"):
            vip5.EvaluationOptions(**{name: "A-3"})  # type: ignore[arg-type]


def test_a_domain_answers_for_no_other(garments: vip5.Domain) -> None:
    with pytest.raises(vip5.InputError, match="'toys' is asked of the domain 'garments'; leave it out"):
        garments.recommend(["toy-0001"], domain="toys")  # type: ignore[call-arg]
    with pytest.raises(vip5.InputError, match="'toys' is asked of the domain 'garments'; leave it out"):
        garments.explain("toy-0001", domain="toys")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "request_kind"),
    [(vip5.RankingOptions, SequentialRequest), (vip5.ExplanationOptions, ExplanationRequest)],
)
def test_options_are_fields_of_the_request(
    options: type[object], request_kind: type[SequentialRequest | ExplanationRequest]
) -> None:
    names = set(options.__annotations__)
    assert names
    assert names <= set(request_kind.model_fields)


def test_an_evaluation_is_that_of_the_engine_that_answers(garments: vip5.Domain, tmp_path: Path) -> None:
    options = vip5.EvaluationOptions(num_users=12, templates=("A-3",), baselines=("popularity",))
    journal = tmp_path / "answers.jsonl"
    report = garments.evaluate(str(HELD_OUT), options, journal=str(journal))
    alone = evaluate(load_runtime(DEMONSTRATION, num_threads=1), "garments", Dataset.read(HELD_OUT), options)
    assert [result.metrics for result in report.results] == [result.metrics for result in alone.results]
    assert len(journal.read_text().splitlines()) == 1 + 12
    assert garments.recommend(HISTORY, k=1).items


def test_calls_of_several_threads_have_the_answers_that_they_have_alone(bundle: vip5.Bundle) -> None:
    histories = [[item_id] for item_id in bundle["toys"].catalog.item_ids[:6]]
    alone = [[item.item_id for item in bundle["toys"].recommend(history, k=3).items] for history in histories]
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda history: bundle["toys"].recommend(history, k=3), histories))
    assert [[item.item_id for item in answer.items] for answer in answers] == alone


async def test_calls_work_where_an_event_loop_runs_as_in_jupyter(garments: vip5.Domain) -> None:
    assert asyncio.get_running_loop().is_running()
    assert len(garments.recommend(HISTORY, k=2).items) == 2


def test_a_closed_bundle_says_so() -> None:
    bundle = vip5.open_bundle(DEMONSTRATION, num_threads=1)
    bundle.close()
    bundle.close()
    with pytest.raises(vip5.ClosedBundleError, match="open it again"):
        bundle["toys"].recommend(["toy-0001"])


def test_what_is_no_bundle_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="has no manifest"):
        vip5.open_bundle(tmp_path)


def test_the_page_s_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(block, {})
    *items, sentence, share = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in items] == ["1", "2", "3"]
    assert sentence
    assert 0.2 < float(share) < 0.7


@pytest.mark.parametrize("options", [vip5.RankingOptions, vip5.ExplanationOptions])
def test_the_page_names_every_option(options: type[object]) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in options.__annotations__ if f"`{name}`" not in page] == []

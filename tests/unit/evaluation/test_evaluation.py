"""A whole evaluation of a small bundle, through its engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from model.bundle.bundle import open_bundle
from model.datasets.dataset import Dataset
from model.decoding.trie_arena import TrieArena
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import rank
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.torch_executor import TorchExecutor
from model.errors import DatasetError, InputError, UnknownDomainError
from model.evaluation.answering import ItemImages
from model.evaluation.answers import Answer, ExactAnswer, RankedAnswer, TextAnswer, read_answers
from model.evaluation.evaluation import evaluate
from model.evaluation.options import EvaluationOptions
from model.evaluation.report import Report
from model.network.config import Task
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import Runtime, load_runtime
from model.progress import Progress
from tests.tiny import tiny_bundle
from tests.unit.evaluation.datasets import toy_review, toys_dataset

SMALL = EvaluationOptions(
    templates=("A-3", "A-7", "B-5", "B-1", "C-3", "C-8"),
    num_exact=3,
    num_negatives=5,
    batch_tokens=256,
    max_new_tokens=4,
    baselines=("random", "popularity"),
)


class KilledError(Exception):
    """The run stops here."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Runtime:
    return load_runtime(bundle)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return toys_dataset(reviews=[toy_review(user) for user in range(6)])


@pytest.fixture(scope="module")
def whole(runtime: Runtime, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, list[Answer]]:
    """The report and the answers of a run that nothing stopped."""
    journal = tmp_path_factory.mktemp("whole") / "toys.answers.jsonl"
    return evaluate(runtime, "toys", dataset, SMALL, journal=journal), read_answers(journal)


def timeless(report: Report) -> Report:
    """Without what a clock gave."""
    return replace(
        report,
        seconds=0.0,
        results=tuple(replace(result, seconds=0.0) for result in report.results),
        exact=tuple(replace(comparison, seconds=0.0) for comparison in report.exact),
    )


def timeless_answers(answers: list[Answer]) -> list[Answer]:
    return [msgspec.structs.replace(answer, seconds=0.0) for answer in answers]


def target_of(dataset: Dataset, user: int) -> str:
    return dataset.catalog.item_ids[int(dataset.sequences.of(user)[-1])]


def test_figures_are_those_of_counting_the_answers(whole: tuple[Report, list[Answer]], dataset: Dataset) -> None:
    report, answers = whole
    tasks: dict[str, Task] = {"A-3": "sequential", "B-5": "direct", "B-1": "direct"}
    for name, task in tasks.items():
        ranked = [each for each in answers if isinstance(each, RankedAnswer) and each.template == name]
        result = report.of(task, name)
        assert result.num_users == len(ranked) == len({each.user for each in ranked}) == 9
        for k in (1, 5, 10):
            hits = [target_of(dataset, each.user) in each.item_ids[:k] for each in ranked]
            assert result.metrics[f"hr@{k}"].value == pytest.approx(np.mean(hits))
        assert result.proofs is not None
        assert result.proofs.mean == pytest.approx(np.mean([each.exact_prefix for each in ranked]))
    assert any(result.metrics["hr@10"].value > 0 for result in report.results if result.task == "direct")


def test_everything_that_was_asked_for_is_there(whole: tuple[Report, list[Answer]], runtime: Runtime) -> None:
    report, answers = whole
    assert [(result.task, result.name) for result in report.results] == [
        *(("sequential", name) for name in ("A-3", "A-7")),
        *(("direct", name) for name in ("B-5", "B-1")),
        *(("explanation", name) for name in ("C-3", "C-8")),
        *((task, name) for name in ("random", "popularity") for task in ("sequential", "direct")),
    ]
    assert [comparison.name for comparison in report.exact] == ["A-3"]
    assert len(answers) == 4 * 9 + 2 * 6 + 3
    assert report.bundle == runtime.bundle_hash
    assert report.of("sequential", "A-3").num_candidates == 108  # of 120 toys, 12 are not active
    among = report.of("sequential", "A-7").num_candidates
    assert among is not None
    assert among <= 6
    assert report.of("explanation", "C-3").num_questions == 6
    assert report.of("explanation", "C-8").num_unrated == 6
    assert report.of("explanation", "C-3").num_unrated is None


def test_answers_are_those_of_each_question_by_itself(
    whole: tuple[Report, list[Answer]], runtime: Runtime, dataset: Dataset
) -> None:
    toys = runtime.domains["toys"]
    images = ItemImages.of(toys, runtime.files["toys"].features)
    for answer in whole[1]:
        if isinstance(answer, RankedAnswer) and answer.template == "A-3":
            history = tuple(dataset.catalog.item_ids[row] for row in dataset.sequences.of(answer.user)[:-1])
            query = OfflineSequential(history=history, user_id=f"u{answer.user + 1}", exclude_history=False)
            plan = plan_sequential(toys, query)
            assert isinstance(plan, RankingPlan)
            (ranking,) = rank(runtime.engine, [images.add_to(plan)])
            assert answer.item_ids == tuple(toys.catalog.item_ids[row] for row in toys.rows_of(ranking.leaves))
            assert answer.scores == pytest.approx(ranking.scores, abs=1e-4)
            assert answer.exact_prefix == ranking.exact_prefix


def test_embeddings_are_read_for_the_items_of_the_prompt(runtime: Runtime) -> None:
    toys = runtime.domains["toys"]
    query = OfflineSequential(history=("item-11", "item-2", "item-1"))  # every 11th toy has no picture
    plan = plan_sequential(toys, query)
    assert isinstance(plan, RankingPlan)
    images = ItemImages.of(toys, runtime.files["toys"].features)
    shown = images.add_to(plan)
    (read,) = shown.features
    assert not read[0].any()
    assert np.array_equal(read[1:], images.features.features[[images.row_of["item-2"], images.row_of["item-1"]]])
    assert read[1:].all()
    assert [each.kind for each in shown.degraded] == ["anonymous_user", "missing_features"]


def test_exact_rankings_are_the_true_top_of_the_catalog(
    whole: tuple[Report, list[Answer]], runtime: Runtime, dataset: Dataset
) -> None:
    exact = [answer for answer in whole[1] if isinstance(answer, ExactAnswer)]
    assert len(exact) == 3
    for answer in exact:
        assert answer.item_ids == true_top(runtime, dataset, answer.user)
        assert answer.is_certified


def test_what_a_search_cannot_prove_is_ranked_by_every_identifier(
    bundle: Path, runtime: Runtime, dataset: Dataset, tmp_path: Path
) -> None:
    arena = TrieArena.of([runtime.domains["toys"].trie])
    network = open_bundle(bundle).network()
    narrow = DecodingEngine(TorchExecutor(network, torch.device("cpu")), arena, certified_beam_limit=10)
    options = replace(SMALL, templates=("A-3",), num_exact=2, baselines=())
    journal = tmp_path / "answers.jsonl"
    report = evaluate(replace(runtime, engine=narrow), "toys", dataset, options, journal=journal)
    exact = [answer for answer in read_answers(journal) if isinstance(answer, ExactAnswer)]
    assert report.exact[0].share_certified == 0
    for answer in exact:
        assert answer.item_ids == true_top(runtime, dataset, answer.user)


def test_beams_are_measured_against_the_exact_ranking(
    whole: tuple[Report, list[Answer]], runtime: Runtime, dataset: Dataset
) -> None:
    report, answers = whole
    exact = {answer.user: answer.item_ids for answer in answers if isinstance(answer, ExactAnswer)}
    beams = {each.user: each.item_ids for each in answers if isinstance(each, RankedAnswer) and each.template == "A-3"}
    (comparison,) = report.exact
    shared = [len(set(beams[user]) & set(exact[user])) / 10 for user in exact]
    assert comparison.recall == pytest.approx(np.mean(shared))
    assert 0 < comparison.recall < 1
    assert comparison.same_items == pytest.approx(np.mean([share == 1 for share in shared]))
    assert comparison.same_order == pytest.approx(np.mean([beams[user] == exact[user] for user in exact]))
    for name, difference in comparison.differences.items():
        both = comparison.beam_metrics[name].value - comparison.exact_metrics[name].value
        assert difference.value == pytest.approx(both)


@pytest.mark.parametrize("num_batches", [0, 1, 5, 14])
def test_a_run_that_was_stopped_goes_on_to_the_same_result(
    whole: tuple[Report, list[Answer]], runtime: Runtime, dataset: Dataset, tmp_path: Path, num_batches: int
) -> None:
    journal = tmp_path / "answers.jsonl"
    with pytest.raises(KilledError):
        evaluate(runtime, "toys", dataset, SMALL, journal=journal, progress=stopping_after(num_batches))
    journal.write_bytes(journal.read_bytes() + b'{"answer":{"type":"ran')  # the middle of a write
    seen: list[int] = []
    resumed = evaluate(
        runtime, "toys", dataset, SMALL, journal=journal, progress=lambda _what, done, _total: seen.append(done)
    )
    assert timeless(resumed) == timeless(whole[0])
    assert timeless_answers(read_answers(journal)) == timeless_answers(whole[1])
    assert len(seen) < 2 + len(whole[1])


def stopping_after(num_batches: int) -> Progress:
    batches: list[int] = []

    def progress(what: str, done: int, total: int | None) -> None:
        if not what.startswith("measuring"):
            batches.append(done)
            assert total == 51
        if len(batches) > num_batches:
            raise KilledError

    return progress


def test_a_run_that_is_done_is_not_asked_again(runtime: Runtime, dataset: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    options = replace(SMALL, templates=("A-3", "B-5"), num_exact=0)
    first = evaluate(runtime, "toys", dataset, options, journal=journal)
    told: list[str] = []
    again = evaluate(
        runtime,
        "toys",
        dataset,
        replace(options, baselines=()),
        journal=journal,
        progress=lambda *said: told.append(said[0]),
    )
    assert told == []
    assert again.results == tuple(result for result in first.results if not result.is_baseline)


def test_groups_are_added_without_asking_again(runtime: Runtime, dataset: Dataset, tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    options = replace(SMALL, templates=("A-3", "C-8"), num_exact=0, baselines=())
    first = evaluate(runtime, "toys", dataset, options, journal=journal)
    told: list[str] = []
    again = evaluate(
        runtime,
        "toys",
        dataset,
        replace(options, groups="category"),
        journal=journal,
        progress=lambda *said: told.append(said[0]),
    )
    assert told == []
    assert tuple(replace(result, groups=None) for result in again.results) == first.results
    for result in again.results:
        assert result.groups is not None
        assert sum(group.num_questions for group in result.groups.groups) == result.num_questions
    again.write(tmp_path / "grouped.json")
    assert Report.read(tmp_path / "grouped.json") == again


def test_exposure_is_that_of_counting_the_answers(whole: tuple[Report, list[Answer]]) -> None:
    report, answers = whole
    ranked = [each for each in answers if isinstance(each, RankedAnswer) and each.template == "A-3"]
    found = report.of("sequential", "A-3").exposure
    assert found is not None
    shown = {item_id for each in ranked for item_id in each.item_ids}
    assert (found.num_items, found.num_shown) == (108, len(shown))
    assert found.metrics["coverage@10"].value == pytest.approx(len(shown) / 108)
    assert 0 < found.metrics["diversity@10"].value < 2
    assert all(result.exposure is not None for result in report.results if result.task != "explanation")


def test_without_images_every_answer_lacks_them_as_with_a_store_that_is_down(
    whole: tuple[Report, list[Answer]], runtime: Runtime, dataset: Dataset
) -> None:
    options = replace(SMALL, templates=("A-3",), num_exact=0, baselines=())
    blind = evaluate(runtime, "toys", dataset, replace(options, with_images=False))
    files = {name: replace(each, features=None) for name, each in runtime.files.items()}
    down = evaluate(replace(runtime, files=files), "toys", dataset, options)
    # Diversity is measured by embeddings that the model does not see.
    one, other = ([replace(each, exposure=None) for each in timeless(report).results] for report in (blind, down))
    assert one == other
    assert blind.of("sequential", "A-3").degraded["missing_features"] == 9
    assert whole[0].of("sequential", "A-3").degraded["missing_features"] < 9


def test_answers_are_degraded_in_the_services_words(whole: tuple[Report, list[Answer]]) -> None:
    assert whole[0].of("sequential", "A-3").degraded.keys() == {"missing_features", "untrained_model"}


def test_a_sample_asks_for_fewer(runtime: Runtime, dataset: Dataset) -> None:
    options = replace(SMALL, num_users=4, num_exact=9, templates=("A-3", "C-3"))
    report = evaluate(runtime, "toys", dataset, options)
    assert {result.num_users for result in report.results} == {4}
    assert report.exact[0].num_users == 4


def test_texts_are_measured_against_what_the_user_wrote(
    whole: tuple[Report, list[Answer]], runtime: Runtime, dataset: Dataset
) -> None:
    texts = [answer for answer in whole[1] if isinstance(answer, TextAnswer) and answer.template == "C-3"]
    truthful = replace(
        dataset,
        reviews=tuple(replace(dataset.reviews[answer.review], explanation=answer.text or "-") for answer in texts),
    )
    report = evaluate(runtime, "toys", truthful, replace(SMALL, templates=("C-3",), baselines=()))
    before, after = (each.of("explanation", "C-3").metrics for each in (whole[0], report))
    assert before["rouge-l"].value < after["rouge-l"].value


def test_reports_come_back_as_they_were_written(whole: tuple[Report, list[Answer]], tmp_path: Path) -> None:
    path = tmp_path / "toys.json"
    whole[0].write(path)
    assert Report.read(path) == whole[0]
    path.write_text('{"bundle": 1}')
    with pytest.raises(DatasetError, match="is not a result of vip5 evaluate"):
        Report.read(path)


def test_a_domain_that_is_not_there_is_named(runtime: Runtime, dataset: Dataset) -> None:
    with pytest.raises(UnknownDomainError, match="the bundle has no domain 'books'; it has toys"):
        evaluate(runtime, "books", dataset)


def true_top(runtime: Runtime, dataset: Dataset, user: int) -> tuple[str, ...]:
    """The ten best items by the log-probability of every identifier, one prompt and one identifier at a time."""
    toys = runtime.domains["toys"]
    history = tuple(dataset.catalog.item_ids[row] for row in dataset.sequences.of(user)[:-1])
    plan = plan_sequential(toys, OfflineSequential(history=history, user_id=f"u{user + 1}", exclude_history=False))
    assert isinstance(plan, RankingPlan)
    shown = ItemImages.of(toys, runtime.files["toys"].features).add_to(plan)
    rows = np.flatnonzero(toys.catalog.is_active).tolist()
    targets = tuple((*toys.assembler.identifiers.row(row).tolist(), toys.tokenizer.eos_id) for row in rows)
    (((scores,),), _) = runtime.engine.score([ScoringPlan.of(shown, targets)])
    return tuple(toys.catalog.item_ids[rows[place]] for place in np.argsort(-np.array(scores), kind="stable")[:10])


def test_both_histories_are_the_results_of_each_alone(runtime: Runtime, dataset: Dataset, tmp_path: Path) -> None:
    asked = EvaluationOptions(templates=("A-3", "B-5"), num_negatives=5, baselines=("popularity",))
    both = evaluate(runtime, "toys", dataset, replace(asked, both_histories=True), journal=tmp_path / "x.jsonl")
    kept = evaluate(runtime, "toys", dataset, asked)
    excluded = evaluate(runtime, "toys", dataset, replace(asked, templates=("A-3",), exclude_history=True))
    for found, expected in ((both.results, kept.results), (both.history_excluded, excluded.results)):
        assert [each.name for each in found] == [each.name for each in expected]
        assert [each.metrics for each in found] == [each.metrics for each in expected]
    both.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == both
    with pytest.raises(InputError, match="exclude_history and both_histories are set"):
        replace(asked, both_histories=True, exclude_history=True)

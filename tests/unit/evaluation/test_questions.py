"""Questions are the queries that a client of the service would send."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.datasets.dataset import Dataset
from model.errors import DatasetError
from model.evaluation.held_out import HeldOut
from model.evaluation.options import EvaluationOptions
from model.evaluation.questions import Questionnaire
from model.planning.queries import OfflineDirect, OfflineExplanation, OfflineSequential
from model.prompts.templates import TEMPLATES
from tests.tiny import tiny_catalog
from tests.unit.evaluation.datasets import toy_review, toys_dataset
from tests.unit.planning.domains import tiny_domain

CATALOG = tiny_catalog(120)
TOYS = tiny_domain(catalog=CATALOG, users=[{"user_id": f"u{n}", "index": str(n), "name": None} for n in range(1, 10)])
HISTORIES = [[4, 5, 6, 7], [1, 2, 3]]


def asking(dataset: Dataset | None = None, domain: object = TOYS, **options: object) -> Questionnaire:
    data = dataset or toys_dataset(HISTORIES)
    chosen = EvaluationOptions(**options)  # type: ignore[arg-type]  # options of each test
    return Questionnaire(HeldOut.of(data, TOYS, chosen), domain)  # type: ignore[arg-type]


def test_histories_are_asked_about_short_ones_first() -> None:
    one, other = asking().questions(TEMPLATES["A-3"])
    assert isinstance(one.query, OfflineSequential)
    assert isinstance(other.query, OfflineSequential)
    assert (one.subject, one.query.history, one.query.user_id) == (1, ("item-2", "item-3"), "u2")
    assert (other.subject, other.query.history, other.query.user_id) == (0, ("item-5", "item-6", "item-7"), "u1")
    assert (one.query.template, one.query.exclude_history, one.query.include_items) == ("A-3", False, None)
    assert (one.query.k, one.query.num_beams) == (10, 20)


def test_direct_and_yes_or_no_questions_are_about_the_same_candidates() -> None:
    questionnaire = asking()
    direct = questionnaire.questions(TEMPLATES["B-5"])[0].query
    sequential = questionnaire.questions(TEMPLATES["A-7"])[1].query
    assert isinstance(direct, OfflineDirect)
    assert isinstance(sequential, OfflineSequential)
    assert direct.candidates is not None
    assert len(direct.candidates) == 100
    assert sequential.include_items == direct.candidates


def test_explanations_are_asked_with_all_that_the_review_says() -> None:
    questionnaire = asking(toys_dataset(HISTORIES, reviews=[toy_review(1, star_rating=3.6)]), max_new_tokens=7)
    (question,) = questionnaire.questions(TEMPLATES["C-12"])
    assert question.query == OfflineExplanation(
        item_id="item-6",
        user_id="u2",
        feature="toy",
        star_rating=4,
        review_headline="next toy",
        template="C-12",
        max_new_tokens=7,
    )


def test_a_domain_without_users_is_told_the_models_index_and_a_name() -> None:
    query = asking(domain=tiny_domain(catalog=CATALOG, users=())).questions(TEMPLATES["A-4"])[0].query
    assert (query.user_id, query.user_name) == ("2", "Ann 2")


def test_templates_are_those_that_the_data_has_something_for() -> None:
    def named(questionnaire: Questionnaire) -> list[str]:
        return [template.template_id for template in questionnaire.templates]

    assert named(asking()) == ["A-3", "A-9", "B-5", "B-8", "B-1"]
    assert named(asking(tasks=("direct",))) == ["B-5", "B-8", "B-1"]
    assert named(asking(templates=("B-8", "A-7", "B-5"))) == ["A-7", "B-8", "B-5"]
    unrated = toys_dataset(HISTORIES, reviews=[toy_review(0, star_rating=None, feature=None)])
    assert named(asking(unrated, tasks=("explanation",), templates=("C-1", "C-2"))) == ["C-1", "C-2"]
    assert named(asking(unrated)) == ["A-3", "A-9", "B-5", "B-8", "B-1"]


@pytest.mark.parametrize(
    ("options", "names"), [({"tasks": ("explanation",)}, "C-3, C-8, C-12"), ({"templates": ("A-3", "C-9")}, "C-9")]
)
def test_explanations_that_were_asked_for_and_cannot_be_had_are_an_error(
    options: dict[str, object], names: str
) -> None:
    with pytest.raises(DatasetError, match=f"no review of toys in the split test can fill {names}; remove"):
        _ = asking(toys_dataset(HISTORIES), TOYS, **options).templates


@settings(max_examples=40, deadline=None)
@given(most=st.integers(1, 400), template=st.sampled_from(["A-3", "B-1", "B-5"]))
def test_batches_keep_the_order_and_go_on_at_any_of_their_ends(most: int, template: str) -> None:
    questionnaire = asking(toys_dataset(), batch_tokens=most, num_negatives=3)
    questions = questionnaire.questions(TEMPLATES[template])
    batches = list(questionnaire.batches(questions))
    assert [question for batch in batches for question, _ in batch] == questions
    for batch in batches:
        lengths = [prompt.num_tokens for _, plan in batch for prompt in plan.prompts]
        assert len(batch) == 1 or len(lengths) * max(lengths) <= most
    done = 0
    for place, batch in enumerate(batches, start=1):
        done += len(batch)
        rest = [[question for question, _ in each] for each in questionnaire.batches(questions[done:])]
        assert rest == [[question for question, _ in each] for each in batches[place:]]

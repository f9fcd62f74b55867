"""Explanations, and how prompts speak of users."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.degradation import Degradation, DegradationKind
from model.errors import InputError, UnknownItemError, UnknownTemplateError
from model.planning.domain import ServedDomain
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineDirect, OfflineExplanation, OfflineSequential
from model.planning.rankings import plan_direct, plan_sequential
from model.prompts.assembly import PromptValues
from model.prompts.templates import TEMPLATES
from tests.unit.planning.domains import item, row, tiny_domain

ASKED = OfflineExplanation(item_id=item(5), user_id="u7")


@pytest.fixture(scope="module")
def domain() -> ServedDomain:
    return tiny_domain()


@pytest.mark.parametrize(
    ("given", "by_index", "by_name"),
    [
        ({}, "C-1", "C-4"),
        ({"star_rating": 4}, "C-3", "C-6"),
        ({"review_headline": "Fine"}, "C-2", "C-5"),
        ({"review_headline": "Fine", "star_rating": 4}, "C-2", "C-5"),
        ({"feature": "price"}, "C-9", "C-10"),
        ({"feature": "price", "review_headline": "Fine"}, "C-9", "C-10"),
        ({"feature": "price", "star_rating": 4}, "C-11", "C-12"),
        ({"feature": "price", "star_rating": 4, "review_headline": "Fine"}, "C-11", "C-12"),
    ],
)
def test_the_best_template_for_the_given_fields_is_chosen(
    domain: ServedDomain, given: dict[str, str | int], by_index: str, by_name: str
) -> None:
    query = replace(ASKED, **given)  # type: ignore[arg-type]  # the cases' fields
    assert plan_explanation(domain, query).template == by_index
    assert plan_explanation(domain, replace(query, user_name="Bob")).template == by_name
    assert plan_explanation(domain, replace(query, user_id=None)).template == by_name
    assert plan_explanation(domain, replace(query, template="C-1")).template == "C-1"


@pytest.mark.parametrize("template_id", [name for name in TEMPLATES if name.startswith("C")])
def test_every_explanation_template_is_filled_with_the_requests_fields(domain: ServedDomain, template_id: str) -> None:
    query = replace(ASKED, template=template_id, feature="price", star_rating=4, review_headline="Fine toy")
    plan = plan_explanation(domain, query)
    values = PromptValues(
        user_index="77", user_name="Ann", item=row(5), feature="price", stars="4", headline="Fine toy"
    )
    expected = domain.assembler.assemble(TEMPLATES[template_id], values)
    assert plan.prompt.input_ids.tolist() == expected.input_ids.tolist()
    assert plan.prompts == (plan.prompt,)
    assert plan.degraded == ()


@pytest.mark.parametrize(
    ("template_id", "missing"),
    [
        ("C-2", "review_headline"), ("C-3", "star_rating"), ("C-5", "review_headline"), ("C-6", "star_rating"),
        ("C-7", "feature"), ("C-9", "feature"), ("C-10", "feature"), ("C-11", "star_rating"), ("C-12", "feature"),
    ],
)  # fmt: skip
def test_a_template_without_its_field_is_refused(domain: ServedDomain, template_id: str, missing: str) -> None:
    everything = replace(ASKED, template=template_id, feature="price", star_rating=4, review_headline="Fine")
    plan_explanation(domain, everything)
    with pytest.raises(InputError) as raised:
        plan_explanation(domain, replace(everything, **{missing: None}))  # type: ignore[arg-type]  # the cases' fields
    assert str(raised.value) == (
        f"template {template_id} needs {missing}; give it, or omit the template to have one chosen"
    )
    assert raised.value.field == missing


def test_an_unknown_item_cannot_be_explained(domain: ServedDomain) -> None:
    with pytest.raises(UnknownItemError) as raised:
        plan_explanation(domain, OfflineExplanation(item_id="x"))
    assert str(raised.value) == "item 'x' is not in the catalog of toys; see GET /domains/toys/items"
    assert (raised.value.field, raised.value.code) == ("item_id", "unknown_item")


def test_an_explanation_by_a_ranking_template_is_refused(domain: ServedDomain) -> None:
    with pytest.raises(UnknownTemplateError) as raised:
        plan_explanation(domain, replace(ASKED, template="B-5"))
    assert str(raised.value).startswith("template 'B-5' is not one of the explanation templates: C-1, C-2, C-3")


def test_an_inactive_item_can_be_explained(domain: ServedDomain) -> None:
    assert plan_explanation(domain, replace(ASKED, item_id=item(10))).prompt.image_items == (row(10),)


def test_a_plan_carries_the_decoding_options(domain: ServedDomain) -> None:
    query = replace(ASKED, max_new_tokens=9, num_beams=3, temperature=0.7, top_p=0.8, seed=4)
    plan = plan_explanation(domain, query)
    assert (plan.max_new_tokens, plan.num_beams, plan.temperature, plan.top_p, plan.seed) == (9, 3, 0.7, 0.8, 4)
    assert (plan.task, plan.slot) == ("explanation", 0)


@pytest.mark.parametrize(
    ("user_id", "user_name", "index", "name"),
    [
        ("u7", None, "77", "Ann"),
        ("u7", "Bob", "77", "Bob"),
        ("u8", None, "88", "u8"),
        ("u9", None, "0", "u9"),
        ("u9", "Bob", "0", "Bob"),
        (None, None, "0", "user_0"),
        (None, "Bob", "0", "Bob"),
    ],
)
def test_prompts_name_users_as_the_table_and_the_request_do(
    domain: ServedDomain, user_id: str | None, user_name: str | None, index: str, name: str
) -> None:
    for template_id in ("A-3", "A-9"):
        query = OfflineSequential(history=(item(3),), user_id=user_id, user_name=user_name, template=template_id)
        values = PromptValues(user_index=index, user_name=name, history=(row(3),))
        expected = domain.assembler.assemble(TEMPLATES[template_id], values)
        (prompt,) = plan_sequential(domain, query).prompts
        assert prompt.input_ids.tolist() == expected.input_ids.tolist()


def test_without_a_table_a_user_is_called_as_given() -> None:
    domain = tiny_domain(users=())
    plan = plan_direct(domain, OfflineDirect(candidates=(item(3),), user_id="4711", template="B-7"))
    values = PromptValues(user_index="4711", candidates=(row(3),))
    expected = domain.assembler.assemble(TEMPLATES["B-7"], values)
    assert plan.prompts[0].input_ids.tolist() == expected.input_ids.tolist()
    assert plan.degraded == ()


def test_an_unknown_user_is_answered_and_named(domain: ServedDomain) -> None:
    plan = plan_explanation(domain, replace(ASKED, user_id="u9"))
    assert plan.degraded == (Degradation(DegradationKind.UNKNOWN_USER, "user u9 is not among the users of toys"),)


@pytest.mark.parametrize(
    ("template_id", "user_name", "is_noted"),
    [("A-3", None, True), ("A-3", "Bob", True), ("A-9", None, True), ("A-9", "Bob", False)],
)
def test_a_prompt_that_speaks_of_nobody_is_said_so(
    domain: ServedDomain, template_id: str, user_name: str | None, *, is_noted: bool
) -> None:
    plan = plan_sequential(domain, OfflineSequential(history=(item(3),), user_name=user_name, template=template_id))
    detail = f"template {template_id} refers to a user that the request does not identify"
    assert plan.degraded == ((Degradation(DegradationKind.ANONYMOUS_USER, detail),) if is_noted else ())


def test_all_that_degrades_an_answer_is_listed(domain: ServedDomain) -> None:
    plan = plan_sequential(
        domain, OfflineSequential(history=("x", item(3)), user_id="u9", include_items=(item(3), "y"))
    )
    assert [each.kind for each in plan.degraded] == [
        "unknown_items", "unknown_items", "unknown_user", "no_eligible_items",
    ]  # fmt: skip

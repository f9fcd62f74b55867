from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.bundle.catalog import Catalog
from model.bundle.layout import PromptDefaults
from model.degradation import Degradation, DegradationKind
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.scores import ranking_of_scores
from model.errors import InputError, UnknownColumnError, UnknownTemplateError
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineDirect, OfflineSequential
from model.planning.rankings import plan_direct, plan_sequential
from model.prompts.assembly import PromptValues
from model.prompts.templates import TEMPLATES
from tests.unit.planning.domains import eligible_numbers, item, row, tiny_domain

ACTIVE = set(range(1, 31)) - {10, 20, 30}
HISTORY = OfflineSequential(history=(item(3), item(12)), user_id="u7")


@pytest.fixture(scope="module")
def domain() -> ServedDomain:
    return tiny_domain()


def test_a_history_becomes_the_default_prompt_with_the_models_indices(domain: ServedDomain) -> None:
    plan = _ranking(domain, HISTORY)
    values = PromptValues(user_index="77", history=(row(3), row(12)))
    expected = domain.assembler.assemble(TEMPLATES["A-3"], values)
    assert (plan.task, plan.template, plan.slot) == ("sequential", "A-3", 0)
    assert plan.prompt.input_ids.tolist() == expected.input_ids.tolist()
    assert plan.prompt.image_items == (row(3), row(12))
    assert plan.degraded == ()


def test_the_domains_own_defaults_hold_where_a_request_is_silent() -> None:
    domain = tiny_domain(prompts=PromptDefaults(sequential="A-9", direct="B-8"), length_penalty=1.5)
    assert _ranking(domain, HISTORY).template == "A-9"
    assert _ranking(domain, HISTORY).length_penalty == 1.5
    assert _ranking(domain, HISTORY, length_penalty=0.0).length_penalty == 0.0
    assert _direct(domain, OfflineDirect(user_id="u7")).template == "B-8"
    assert _ranking(domain, replace(HISTORY, template="A-1")).template == "A-1"


def test_a_plan_carries_what_the_request_asked_for(domain: ServedDomain) -> None:
    plan = _ranking(domain, HISTORY, k=7, num_beams=9, length_penalty=-1.0, exactness="certified")
    assert (plan.k, plan.num_beams, plan.length_penalty, plan.certified) == (7, 9, -1.0, True)


@pytest.mark.parametrize(("k", "num_beams", "expected"), [(10, None, 20), (35, None, 35), (10, 10, 10), (1, 50, 50)])
def test_beams_are_as_many_as_asked_for_or_enough(
    domain: ServedDomain, k: int, num_beams: int | None, expected: int
) -> None:
    assert _ranking(domain, HISTORY, k=k, num_beams=num_beams).num_beams == expected


def test_fewer_beams_than_items_are_refused(domain: ServedDomain) -> None:
    with pytest.raises(InputError) as raised:
        _ranking(domain, HISTORY, k=10, num_beams=9)
    assert str(raised.value) == (
        "num_beams is 9, k is 10; a search returns at most one item per beam: raise num_beams or lower k"
    )
    assert raised.value.field == "num_beams"


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        (HISTORY, {}, ACTIVE - {3, 12}),
        (replace(HISTORY, exclude_history=False), {}, ACTIVE),
        (HISTORY, {"exclude_items": (item(1), item(3))}, ACTIVE - {1, 3, 12}),
        (replace(HISTORY, include_items=(item(4), item(3), item(10), item(4))), {}, {4}),
        (HISTORY, {"where": {"category": ("dolls",)}}, {n for n in ACTIVE if n % 3 == 0} - {3, 12}),
        (HISTORY, {"where": {"category": ("dolls", "games"), "tags": ("red",)}}, {15, 25}),
        (replace(HISTORY, include_items=(item(6), item(7))), {"where": {"category": ("dolls",)}}, {6}),
    ],
)
def test_only_what_all_constraints_admit_is_eligible(
    domain: ServedDomain, query: OfflineSequential, options: dict[str, object], expected: set[int]
) -> None:
    plan = plan_sequential(domain, replace(query, **options))  # type: ignore[arg-type]  # cases
    assert isinstance(plan, RankingPlan)
    assert eligible_numbers(domain, plan.eligibility.mask().tolist()) == expected
    assert plan.eligibility.num_eligible == len(expected)
    assert plan.degraded == ()


def test_constraints_that_leave_nothing_are_said_so(domain: ServedDomain) -> None:
    plan = _ranking(domain, replace(HISTORY, include_items=(item(3), item(20))))
    assert plan.eligibility.num_eligible == 0
    detail = "no item of the catalog satisfies the constraints; nothing can be recommended"
    assert plan.degraded == (Degradation(DegradationKind.NO_ELIGIBLE_ITEMS, detail),)


def test_unknown_items_of_a_history_are_left_out_and_named(domain: ServedDomain) -> None:
    plan = _ranking(domain, replace(HISTORY, history=("x", item(3), "y")))
    assert plan.prompt.image_items == (row(3),)
    detail = "2 of history omitted, not in the catalog: x, y"
    assert plan.degraded == (Degradation(DegradationKind.UNKNOWN_ITEMS, detail),)


def test_of_many_unknown_items_the_first_are_named(domain: ServedDomain) -> None:
    unknown = tuple(f"x{number}" for number in range(8))
    plan = _ranking(domain, HISTORY, exclude_items=unknown)
    detail = "8 of exclude_items omitted, not in the catalog: x0, x1, x2, x3, x4, …"
    assert plan.degraded == (Degradation(DegradationKind.UNKNOWN_ITEMS, detail),)


@pytest.mark.parametrize("history", [(), ("x",), ("x", "y")])
def test_a_history_without_a_known_item_is_refused(domain: ServedDomain, history: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as raised:
        plan_sequential(domain, OfflineSequential(history=history))
    assert str(raised.value) == (
        f"none of the {len(history)} items of the history is in the catalog of toys; give at least one item_id that is"
    )
    assert raised.value.field == "history"


def test_inclusions_without_a_known_item_are_refused(domain: ServedDomain) -> None:
    with pytest.raises(InputError) as raised:
        plan_sequential(domain, replace(HISTORY, include_items=("x", "y")))
    assert str(raised.value) == (
        "none of the 2 include_items is in the catalog of toys; give at least one item_id that is"
    )
    assert raised.value.field == "include_items"


def test_candidates_without_a_known_item_are_refused(domain: ServedDomain) -> None:
    with pytest.raises(InputError) as raised:
        plan_direct(domain, OfflineDirect(candidates=("x",)))
    assert str(raised.value) == "none of the 1 candidates is in the catalog of toys; give at least one item_id that is"
    assert raised.value.field == "candidates"


@pytest.mark.parametrize("template", ["A-10", "a-1", "B-5", "C-1"])
def test_a_template_of_another_task_or_of_none_is_refused(domain: ServedDomain, template: str) -> None:
    with pytest.raises(UnknownTemplateError) as raised:
        plan_sequential(domain, replace(HISTORY, template=template))
    assert str(raised.value) == (
        f"template {template!r} is not one of the sequential templates: A-1, A-2, A-3, A-4, A-5, A-6, A-7, A-8, A-9"
    )
    assert (raised.value.field, raised.value.code) == ("template", "unknown_template")


def test_a_direct_template_is_none_of_the_others(domain: ServedDomain) -> None:
    with pytest.raises(UnknownTemplateError) as raised:
        plan_direct(domain, OfflineDirect(template="A-1"))
    assert str(raised.value) == (
        "template 'A-1' is not one of the direct templates: B-1, B-2, B-3, B-4, B-5, B-6, B-7, B-8"
    )


def test_a_filter_by_an_unknown_column_is_refused(domain: ServedDomain) -> None:
    with pytest.raises(UnknownColumnError) as raised:
        _ranking(domain, HISTORY, where={"colour": ("red",)})
    assert raised.value.field == "where.colour"


def test_a_prompt_that_is_cut_is_said_so() -> None:
    domain = tiny_domain(prompts=PromptDefaults(max_tokens=24))
    plan = _ranking(domain, replace(HISTORY, history=tuple(item(n) for n in range(1, 12))))
    assert plan.prompt.num_tokens == 24
    untruncated = plan.prompt.num_tokens_untruncated
    detail = f"the prompt has {untruncated} tokens; the model reads only the first 24"
    assert plan.degraded == (Degradation(DegradationKind.PROMPT_TRUNCATED, detail),)
    assert untruncated > 24


def test_of_several_prompts_that_are_cut_the_longest_is_told() -> None:
    catalog = Catalog.from_rows(
        {"item_id": item(number), "index": str(number), "title": "toy " * length}
        for number, length in enumerate((40, 70, 3, 50), start=1)
    )
    domain = tiny_domain(prompts=PromptDefaults(max_tokens=60), catalog=catalog)
    plan = plan_direct(domain, OfflineDirect(candidates=catalog.item_ids, user_id="u7", template="B-3"))
    lengths = [prompt.num_tokens_untruncated for prompt in plan.prompts]
    assert [length > 60 for length in lengths] == [True, True, False, True]
    (degraded,) = plan.degraded
    assert degraded.detail == f"the prompt has {lengths[1]} tokens; the model reads only the first 60"


def test_candidates_stand_in_the_prompt_and_bound_the_answer(domain: ServedDomain) -> None:
    plan = _direct(domain, OfflineDirect(candidates=(item(5), item(10), "x", item(2)), user_id="u7"))
    assert plan.template == "B-5"
    assert plan.prompt.image_items == (row(5), row(10), row(2))
    assert eligible_numbers(domain, plan.eligibility.mask().tolist()) == {2, 5}
    assert [each.kind for each in plan.degraded] == ["unknown_items"]


def test_without_candidates_the_whole_catalog_is_ranked(domain: ServedDomain) -> None:
    plan = _direct(domain, OfflineDirect(user_id="u7"))
    assert plan.prompt.image_items == ()
    assert eligible_numbers(domain, plan.eligibility.mask().tolist()) == ACTIVE


@pytest.mark.parametrize("template", ["B-1", "B-2", "B-3", "B-4"])
def test_pointwise_templates_ask_about_each_eligible_candidate_once(domain: ServedDomain, template: str) -> None:
    candidates = (item(9), item(10), item(2), item(9), item(4))
    query = OfflineDirect(candidates=candidates, user_id="u7", template=template, k=2, exclude_items=(item(4),))
    plan = plan_direct(domain, query)
    assert isinstance(plan, ScoringPlan)
    assert _candidates(domain, plan) == [row(9), row(2)]
    assert (plan.k, plan.task, plan.template) == (2, "direct", template)
    values = PromptValues(user_index="77", user_name="Ann")
    for candidate, prompt in zip(_candidates(domain, plan), plan.prompts, strict=True):
        expected = domain.assembler.assemble(TEMPLATES[template], replace(values, item=candidate))
        assert prompt.input_ids.tolist() == expected.input_ids.tolist()
    words = domain.tokenizer.words
    assert plan.targets == ((*words("yes"), 1), (*words("no"), 1))


@pytest.mark.parametrize("template", ["A-7", "A-8"])
def test_sequential_yes_or_no_asks_about_the_included_items(domain: ServedDomain, template: str) -> None:
    plan = plan_sequential(domain, replace(HISTORY, template=template, include_items=(item(8), item(3), item(6))))
    assert isinstance(plan, ScoringPlan)
    assert _candidates(domain, plan) == [row(8), row(6)]
    assert [prompt.image_items for prompt in plan.prompts] == [(row(3), row(12), row(8)), (row(3), row(12), row(6))]


@pytest.mark.parametrize("template", ["A-7", "A-8"])
def test_sequential_yes_or_no_needs_items_to_ask_about(domain: ServedDomain, template: str) -> None:
    with pytest.raises(InputError) as raised:
        plan_sequential(domain, replace(HISTORY, template=template))
    assert str(raised.value) == (
        f"template {template} asks yes or no about each of include_items; give include_items, "
        "or choose one of A-1, A-2, A-3, A-4, A-5, A-6, A-9"
    )
    assert raised.value.field == "include_items"


@pytest.mark.parametrize("template", ["B-1", "B-2", "B-3", "B-4"])
def test_direct_yes_or_no_needs_candidates(domain: ServedDomain, template: str) -> None:
    with pytest.raises(InputError) as raised:
        plan_direct(domain, OfflineDirect(template=template))
    assert str(raised.value) == (
        f"template {template} asks yes or no about each candidate; give candidates, "
        "or choose one of B-5, B-6, B-7, B-8 to rank the whole catalog"
    )
    assert raised.value.field == "candidates"


def test_candidates_are_ranked_by_their_share_of_yes() -> None:
    plan = _scoring_plan(leaves=(4, 7, 9, 2), k=3)
    ranking = ranking_of_scores(plan, ((-1.0, -1.0), (-3.0, -1.0), (-0.5, -2.5), (-2.0, -2.0)))
    assert ranking.leaves.tolist() == [9, 4, 2]  # equals keep the order of the candidates
    assert ranking.scores == pytest.approx([np.exp(-0.5) / (np.exp(-0.5) + np.exp(-2.5)), 0.5, 0.5])
    assert (ranking.exact_prefix, ranking.num_beams) == (3, 0)


def test_many_equal_candidates_keep_their_order() -> None:
    leaves = tuple(range(40, 0, -1))
    assert ranking_of_scores(_scoring_plan(leaves, k=40), ((-1.0, -2.0),) * 40).leaves.tolist() == list(leaves)


def test_no_eligible_candidate_gives_no_ranking() -> None:
    ranking = ranking_of_scores(_scoring_plan(leaves=(), k=3), ())
    assert (len(ranking.leaves), len(ranking.scores), ranking.exact_prefix) == (0, 0, 0)


def _candidates(domain: ServedDomain, plan: ScoringPlan) -> list[int]:
    rows: list[int] = domain.rows_of(np.array(plan.leaves)).tolist()
    return rows


def _ranking(domain: ServedDomain, query: OfflineSequential, **options: object) -> RankingPlan:
    plan = plan_sequential(domain, replace(query, **options))  # type: ignore[arg-type]  # cases
    assert isinstance(plan, RankingPlan)
    return plan


def _direct(domain: ServedDomain, query: OfflineDirect) -> RankingPlan:
    plan = plan_direct(domain, query)
    assert isinstance(plan, RankingPlan)
    return plan


def _scoring_plan(leaves: tuple[int, ...], k: int) -> ScoringPlan:
    return ScoringPlan(slot=0, task="direct", template="B-1", prompts=(), targets=((5, 1), (6, 1)), leaves=leaves, k=k)

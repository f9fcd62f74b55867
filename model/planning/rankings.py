"""Plans rankings: a constrained search, or one yes/no question for each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from model.decoding.eligibility import Eligibility
from model.degradation import Degradation, DegradationKind
from model.engine.plans import RankingPlan, ScoringPlan
from model.errors import InputError
from model.planning.arguments import item_templates, known_rows, note_truncation, required_rows, template_of, with_user
from model.planning.domain import ServedDomain
from model.planning.merchandising import has_merchandising, plan_boosts, plan_limits
from model.planning.queries import DirectQuery, RankingQuery, SequentialQuery
from model.prompts.assembly import PromptValues
from model.prompts.templates import Template

DEFAULT_BEAMS = 20


def plan_sequential(domain: ServedDomain, query: SequentialQuery) -> RankingPlan | ScoringPlan:
    """Next items for a history. Templates A-7 and A-8 score each of `include_items`. Raises InputError kinds."""
    template = sequential_template(domain, query)
    notes: list[Degradation] = []
    history = required_rows(domain, query.history, "history", notes)
    excluded = known_rows(domain, query.exclude_items, "exclude_items", notes)
    included = None
    if query.include_items is not None:
        included = required_rows(domain, query.include_items, "include_items", notes)
    values = with_user(PromptValues(history=tuple(history)), domain, template, query, notes)
    if query.exclude_history:
        excluded += history
    eligibility = eligibility_of(domain, query, included, excluded, notes)
    if template.target == "yes_no":
        plan: RankingPlan | ScoringPlan = _scoring_plan(
            domain, query, template, values, _eligible(domain, included or (), eligibility), notes
        )
    else:
        plan = _ranking_plan(domain, query, template, values, eligibility, notes)
    return _with_merchandising(plan, domain, query)


def sequential_template(domain: ServedDomain, query: SequentialQuery) -> Template:
    """The query's template. Raises UnknownTemplateError, and InputError if it needs items that the query lacks."""
    template = template_of(domain, query.template or domain.spec.prompts.sequential, "sequential")
    if template.target == "yes_no" and query.include_items is None:
        raise InputError(
            f"template {template.template_id} asks yes or no about each of include_items; give include_items, "
            f"or choose one of {item_templates(domain, 'sequential')}",
            field="include_items",
        )
    return template


def plan_direct(domain: ServedDomain, query: DirectQuery) -> RankingPlan | ScoringPlan:
    """Candidates, or the whole catalog. Templates B-1 to B-4 score each candidate. Raises InputError kinds."""
    template = template_of(domain, query.template or domain.spec.prompts.direct, "direct")
    notes: list[Degradation] = []
    excluded = known_rows(domain, query.exclude_items, "exclude_items", notes)
    candidates = None
    if query.candidates is not None:
        candidates = required_rows(domain, query.candidates, "candidates", notes)
    elif template.target == "yes_no":
        raise InputError(
            f"template {template.template_id} asks yes or no about each candidate; give candidates, "
            f"or choose one of {item_templates(domain, 'direct')} to rank the whole catalog",
            field="candidates",
        )
    values = with_user(PromptValues(candidates=tuple(candidates or ())), domain, template, query, notes)
    eligibility = eligibility_of(domain, query, candidates, excluded, notes)
    if template.target == "yes_no":
        plan: RankingPlan | ScoringPlan = _scoring_plan(
            domain, query, template, values, _eligible(domain, candidates or (), eligibility), notes
        )
    else:
        plan = _ranking_plan(domain, query, template, values, eligibility, notes)
    return _with_merchandising(plan, domain, query)


def _with_merchandising(
    plan: RankingPlan | ScoringPlan, domain: ServedDomain, query: RankingQuery
) -> RankingPlan | ScoringPlan:
    """The plan with the query's boosts and limits. Raises InputError kinds."""
    if not has_merchandising(domain, query):
        return plan
    notes: list[Degradation] = []
    mask = plan.eligibility.base if isinstance(plan, RankingPlan) else domain.eligible({})
    boosts, limits = plan_boosts(domain, query, mask, notes), plan_limits(domain, query)
    if boosts is None and not limits:
        return plan
    return replace(plan, boosts=boosts, limits=limits).degraded_by(*notes)


def eligibility_of(
    domain: ServedDomain,
    query: RankingQuery,
    included: Sequence[int] | None,
    excluded: Sequence[int],
    notes: list[Degradation],
) -> Eligibility:
    """Leaves that the query allows: active items that match its filter, among `included` and not `excluded`."""
    leaf_of = domain.leaves_of_rows.item
    eligibility = Eligibility.of(
        domain.eligible(query.where),
        exclude=map(leaf_of, excluded),
        include=None if included is None else map(leaf_of, included),
    )
    if eligibility.num_eligible == 0:
        detail = "no item of the catalog satisfies the constraints; nothing can be recommended"
        notes.append(Degradation(DegradationKind.NO_ELIGIBLE_ITEMS, detail))
    return eligibility


def _ranking_plan(
    domain: ServedDomain,
    query: RankingQuery,
    template: Template,
    values: PromptValues,
    eligibility: Eligibility,
    notes: list[Degradation],
) -> RankingPlan:
    """A search over the eligible items."""
    num_beams = num_beams_of(query)
    prompt = domain.assembler.assemble(template, values)
    note_truncation([prompt], notes)
    return RankingPlan(
        slot=domain.slot,
        task=template.task,
        template=template.template_id,
        prompts=(prompt,),
        degraded=tuple(notes),
        eligibility=eligibility,
        k=query.k,
        num_beams=num_beams,
        length_penalty=domain.spec.length_penalty if query.length_penalty is None else query.length_penalty,
        certified=query.exactness == "certified",
    )


def _scoring_plan(
    domain: ServedDomain,
    query: RankingQuery,
    template: Template,
    values: PromptValues,
    rows: Sequence[int],
    notes: list[Degradation],
) -> ScoringPlan:
    """A yes/no prompt for each of the catalog rows."""
    prompts = tuple(domain.assembler.assemble(template, replace(values, item=row)) for row in rows)
    note_truncation(prompts, notes)
    return ScoringPlan(
        slot=domain.slot,
        task=template.task,
        template=template.template_id,
        prompts=prompts,
        degraded=tuple(notes),
        targets=yes_no_targets(domain),
        leaves=tuple(int(domain.leaves_of_rows[row]) for row in rows),
        k=query.k,
    )


def yes_no_targets(domain: ServedDomain) -> tuple[tuple[int, ...], ...]:
    """Token ids of the answers to a template that asks yes or no."""
    return tuple((*domain.tokenizer.words(word), domain.tokenizer.eos_id) for word in ("yes", "no"))


def _eligible(domain: ServedDomain, rows: Sequence[int], eligibility: Eligibility) -> list[int]:
    """The distinct eligible rows, in order."""
    is_eligible = eligibility.mask()
    return [row for row in dict.fromkeys(rows) if is_eligible[domain.leaves_of_rows[row]]]


def num_beams_of(query: RankingQuery) -> int:
    """The beam width of a search. Raises InputError."""
    num_beams = max(DEFAULT_BEAMS, query.k) if query.num_beams is None else query.num_beams
    if num_beams < query.k:
        raise InputError(
            f"num_beams is {num_beams}, k is {query.k}; a search returns at most one item per beam: raise num_beams "
            "or lower k",
            field="num_beams",
        )
    return num_beams

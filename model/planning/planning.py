"""From a query in the shop's ids to prompts and constraints.

What a request names and the domain does not know is left out and said so; only what leaves nothing to answer is an
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from model.decoding.eligibility import Eligibility
from model.errors import InputError, UnknownItemError, UnknownTemplateError
from model.network.config import Task
from model.planning.domain import ServedDomain
from model.planning.plans import Degradation, PointwisePlan, RankingPlan, TextPlan
from model.planning.queries import DirectQuery, ExplanationQuery, RankingOptions, SequentialQuery
from model.prompts.assembly import PromptValues
from model.prompts.prompt import Prompt
from model.prompts.templates import TEMPLATES, Argument, Template

ANONYMOUS_INDEX = "0"
"""The model's index of a user whom the domain does not know; VIP5's users count from 1."""

DEFAULT_BEAMS = 20
_NAMED_IN_DETAIL = 5
_UserQuery: TypeAlias = SequentialQuery | DirectQuery | ExplanationQuery


@dataclass
class _Notes:
    """Collects what makes an answer less than it could be."""

    found: list[Degradation] = field(default_factory=list)

    def add(self, kind: str, detail: str) -> None:
        self.found.append(Degradation(kind, detail))

    def closed(self, prompts: Sequence[Prompt]) -> tuple[Degradation, ...]:
        cut = [prompt for prompt in prompts if prompt.is_truncated]
        if cut:
            longest = max(prompt.num_tokens_untruncated for prompt in cut)
            detail = f"the prompt has {longest} tokens, the model reads the first {cut[0].num_tokens}"
            self.add("prompt_truncated", detail)
        return tuple(self.found)


@dataclass(frozen=True)
class _Ask:
    """What both kinds of ranking need: rows of the catalog are known by now."""

    template: Template
    options: RankingOptions
    values: PromptValues
    included: Sequence[int] | None
    excluded: set[int]
    notes: _Notes


def plan_sequential(domain: ServedDomain, query: SequentialQuery) -> RankingPlan | PointwisePlan:
    """Next items for a history. A-7 and A-8 ask yes or no about each of `include_items`."""
    template = _template(query.template or domain.spec.prompts.sequential, "sequential")
    notes = _Notes()
    history = _known(domain, query.history, "history", notes)
    if not history:
        raise InputError(
            f"none of the {len(query.history)} items of the history is in the catalog of {domain.name}; "
            "give at least one item_id that is",
            field="history",
        )
    excluded = set(_known(domain, query.options.exclude_items, "exclude_items", notes))
    if query.exclude_history:
        excluded.update(history)
    included = None
    if query.include_items is not None:
        included = _required(domain, query.include_items, "include_items", notes)
    values = _with_user(domain, template, query, notes, PromptValues(history=tuple(history)))
    ask = _Ask(template, query.options, values, included, excluded, notes)
    if template.target == "yes_no":
        if included is None:
            raise InputError(
                f"template {template.template_id} asks yes or no about each of include_items; give include_items, "
                "or take one of A-1 to A-6 and A-9",
                field="include_items",
            )
        return _pointwise(domain, ask, included)
    return _listwise(domain, ask)


def plan_direct(domain: ServedDomain, query: DirectQuery) -> RankingPlan | PointwisePlan:
    """Rank candidates, or the whole catalog; B-1 to B-4 ask yes or no about each candidate."""
    template = _template(query.template or domain.spec.prompts.direct, "direct")
    notes = _Notes()
    excluded = set(_known(domain, query.options.exclude_items, "exclude_items", notes))
    candidates = None
    if query.candidates is not None:
        candidates = _required(domain, query.candidates, "candidates", notes)
    values = _with_user(domain, template, query, notes, PromptValues(candidates=tuple(candidates or ())))
    ask = _Ask(template, query.options, values, candidates, excluded, notes)
    if template.target == "yes_no":
        if candidates is None:
            raise InputError(
                f"template {template.template_id} asks yes or no about each candidate; give candidates, "
                "or take one of B-5 to B-8 to rank the whole catalog",
                field="candidates",
            )
        return _pointwise(domain, ask, candidates)
    return _listwise(domain, ask)


def plan_explanation(domain: ServedDomain, query: ExplanationQuery) -> TextPlan:
    """Why a user would like an item, by the named template or the best that the given fields allow."""
    row = domain.catalog.row_of(query.item_id)
    if row is None:
        raise UnknownItemError(
            f"item {query.item_id!r} is not in the catalog of {domain.name}; see GET /domains/{domain.name}/items",
            field="item_id",
        )
    notes = _Notes()
    template = _template(query.template or _best_explanation(query), "explanation")
    _check_given(template, query)
    values = PromptValues(
        item=row,
        feature=query.feature or "",
        stars="" if query.star_rating is None else str(query.star_rating),
        headline=query.review_headline or "",
    )
    values = _with_user(domain, template, query, notes, values)
    prompt = domain.assembler.assemble(template, values)
    return TextPlan(
        slot=domain.slot,
        template=template.template_id,
        prompt=prompt,
        max_new_tokens=query.max_new_tokens,
        num_beams=query.num_beams,
        temperature=query.temperature,
        top_p=query.top_p,
        seed=query.seed,
        degraded=notes.closed([prompt]),
    )


def _listwise(domain: ServedDomain, ask: _Ask) -> RankingPlan:
    """One search over the catalog, or over the included rows of it."""
    options = ask.options
    eligibility = _eligibility(domain, ask)
    prompt = domain.assembler.assemble(ask.template, ask.values)
    length_penalty = domain.spec.length_penalty if options.length_penalty is None else options.length_penalty
    return RankingPlan(
        slot=domain.slot,
        task=ask.template.task,
        template=ask.template.template_id,
        prompt=prompt,
        eligibility=eligibility,
        k=options.k,
        num_beams=_num_beams(options),
        length_penalty=length_penalty,
        certified=options.exactness == "certified",
        degraded=ask.notes.closed([prompt]),
    )


def _pointwise(domain: ServedDomain, ask: _Ask, candidates: Sequence[int]) -> PointwisePlan:
    """One prompt per candidate that is eligible."""
    is_eligible = _eligibility(domain, ask).mask()
    rows = tuple(row for row in dict.fromkeys(candidates) if is_eligible[domain.leaves_of_rows[row]])
    prompts = tuple(domain.assembler.assemble(ask.template, replace(ask.values, item=row)) for row in rows)
    eos = domain.tokenizer.eos_id
    return PointwisePlan(
        slot=domain.slot,
        task=ask.template.task,
        template=ask.template.template_id,
        prompts=prompts,
        candidate_rows=rows,
        yes_ids=(*domain.tokenizer.words("yes"), eos),
        no_ids=(*domain.tokenizer.words("no"), eos),
        k=ask.options.k,
        degraded=ask.notes.closed(prompts),
    )


def _eligibility(domain: ServedDomain, ask: _Ask) -> Eligibility:
    leaves = domain.leaves_of_rows
    eligibility = Eligibility.of(
        domain.eligible(ask.options.where),
        exclude=(int(leaves[row]) for row in ask.excluded),
        include=None if ask.included is None else (int(leaves[row]) for row in ask.included),
    )
    if eligibility.num_eligible == 0:
        ask.notes.add("no_eligible_items", "the constraints leave no item of the catalog; nothing can be recommended")
    return eligibility


def _num_beams(options: RankingOptions) -> int:
    num_beams = max(DEFAULT_BEAMS, options.k) if options.num_beams is None else options.num_beams
    if num_beams < options.k:
        raise InputError(
            f"num_beams is {num_beams}, k is {options.k}; a search returns at most one item a beam: raise num_beams or "
            "lower k",
            field="num_beams",
        )
    return num_beams


def _template(template_id: str, task: Task) -> Template:
    template = TEMPLATES.get(template_id)
    if template is None or template.task != task:
        known = ", ".join(name for name, each in TEMPLATES.items() if each.task == task)
        raise UnknownTemplateError(
            f"template {template_id!r} is not one of the {task} templates: {known}", field="template"
        )
    return template


def _known(domain: ServedDomain, item_ids: Sequence[str], name: str, notes: _Notes) -> list[int]:
    """Catalog rows of the items that there are; the others are noted."""
    rows = [(item_id, domain.catalog.row_of(item_id)) for item_id in item_ids]
    unknown = [item_id for item_id, row in rows if row is None]
    if unknown:
        named = ", ".join(unknown[:_NAMED_IN_DETAIL]) + (", …" if len(unknown) > _NAMED_IN_DETAIL else "")
        notes.add("unknown_items", f"{len(unknown)} of {name} not in the catalog and left out: {named}")
    return [row for _, row in rows if row is not None]


def _required(domain: ServedDomain, item_ids: Sequence[str], name: str, notes: _Notes) -> list[int]:
    rows = _known(domain, item_ids, name, notes)
    if not rows:
        raise InputError(
            f"none of the {len(item_ids)} {name} is in the catalog of {domain.name}; give at least one item_id that is",
            field=name,
        )
    return rows


def _with_user(
    domain: ServedDomain, template: Template, query: _UserQuery, notes: _Notes, values: PromptValues
) -> PromptValues:
    """The values with the user's index and name: from the domain's table of users, or as given where there is none."""
    index, name = query.user_id, query.user_name or query.user_id
    if query.user_id is None:
        index, name = ANONYMOUS_INDEX, query.user_name or f"user_{ANONYMOUS_INDEX}"
        if template.needs("user_index") or (template.needs("user_name") and query.user_name is None):
            notes.add(
                "anonymous_user", f"template {template.template_id} speaks of a user whom the request does not name"
            )
    elif domain.users is not None:
        user = domain.users.find(query.user_id)
        if user is None:
            index = ANONYMOUS_INDEX
            notes.add("unknown_user", f"user {query.user_id} is not among the users of {domain.name}")
        else:
            index, name = user.index, query.user_name or user.name or query.user_id
    return replace(values, user_index=index or ANONYMOUS_INDEX, user_name=name or ANONYMOUS_INDEX)


_REQUEST_FIELDS: dict[Argument, str] = {"feature": "feature", "stars": "star_rating", "headline": "review_headline"}


def _best_explanation(query: ExplanationQuery) -> str:
    """VIP5's templates by how much they tell the model; those with a name where one is given."""
    has_name = query.user_name is not None or query.user_id is None
    if query.feature is not None and query.star_rating is not None:
        return "C-12" if has_name else "C-11"
    if query.feature is not None:
        return "C-10" if has_name else "C-9"
    if query.review_headline is not None:
        return "C-5" if has_name else "C-2"
    if query.star_rating is not None:
        return "C-6" if has_name else "C-3"
    return "C-4" if has_name else "C-1"


def _check_given(template: Template, query: ExplanationQuery) -> None:
    for argument, name in _REQUEST_FIELDS.items():
        if template.needs(argument) and getattr(query, name) is None:
            raise InputError(
                f"template {template.template_id} needs {name}; give it, or leave the template out to have one chosen",
                field=name,
            )

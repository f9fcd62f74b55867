"""Plans explanations."""

from __future__ import annotations

from model.degradation import Degradation
from model.engine.plans import TextPlan
from model.errors import InputError, UnknownItemError
from model.planning.arguments import note_truncation, template_of, with_user
from model.planning.domain import ServedDomain
from model.planning.queries import ExplanationQuery
from model.prompts.assembly import PromptValues
from model.prompts.templates import Argument, Template

_REQUEST_FIELDS: dict[Argument, str] = {"feature": "feature", "stars": "star_rating", "headline": "review_headline"}


def plan_explanation(domain: ServedDomain, query: ExplanationQuery) -> TextPlan:
    """Plan an explanation with the requested template, or the most specific one for the given fields.

    Raises InputError kinds.
    """
    row = domain.catalog.row_of(query.item_id)
    if row is None:
        raise UnknownItemError(
            f"item {query.item_id!r} is not in the catalog of {domain.name}; see GET /domains/{domain.name}/items",
            field="item_id",
        )
    template = template_of(domain, query.template or _best_template(query), "explanation")
    _check_given(template, query)
    notes: list[Degradation] = []
    values = PromptValues(
        item=row,
        feature=query.feature or "",
        stars="" if query.star_rating is None else str(query.star_rating),
        headline=query.review_headline or "",
    )
    prompt = domain.assembler.assemble(template, with_user(values, domain, template, query, notes))
    note_truncation([prompt], notes)
    return TextPlan(
        slot=domain.slot,
        task=template.task,
        template=template.template_id,
        prompts=(prompt,),
        degraded=tuple(notes),
        max_new_tokens=query.max_new_tokens,
        num_beams=query.num_beams,
        temperature=query.temperature,
        top_p=query.top_p,
        seed=query.seed,
    )


def _best_template(query: ExplanationQuery) -> str:
    """The template that uses most of the given fields; with a user name if one is given or user_id is missing."""
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
                f"template {template.template_id} needs {name}; give it, or omit the template to have one chosen",
                field=name,
            )

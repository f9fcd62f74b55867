"""Arguments of a prompt: its template, user and items, from the names in a request.

Unknown items and users are omitted and noted as degradations; an error is raised only if no answer is possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from model.degradation import Degradation, DegradationKind
from model.errors import InputError, UnknownTemplateError
from model.network.config import Task
from model.planning.domain import ServedDomain
from model.planning.queries import UserQuery
from model.prompts.assembly import PromptValues
from model.prompts.prompt import Prompt
from model.prompts.templates import Template, templates_of

ANONYMOUS_INDEX = "0"
"""Index of an unknown user in prompts; VIP5's users count from 1."""

_MAX_NAMED = 5


def template_of(domain: ServedDomain, template_id: str, task: Task) -> Template:
    """Raises UnknownTemplateError for a template that does not exist in the domain or belongs to another task."""
    template = domain.templates.get(template_id)
    if template is None or template.task != task:
        known = ", ".join(each.template_id for each in templates_of(task, domain.templates))
        raise UnknownTemplateError(
            f"template {template_id!r} is not one of the {task} templates: {known}", field="template"
        )
    return template


def item_templates(domain: ServedDomain, task: Task) -> str:
    """Names of the task's templates that generate items instead of yes or no."""
    return ", ".join(each.template_id for each in templates_of(task, domain.templates) if each.target == "item")


def known_rows(domain: ServedDomain, item_ids: Sequence[str], name: str, notes: list[Degradation]) -> list[int]:
    """Catalog rows of the known items. The others are noted with `name`, the field of the request."""
    rows = [domain.catalog.row_of(item_id) for item_id in item_ids]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        unknown = [item_id for item_id, row in zip(item_ids, rows, strict=True) if row is None]
        named = ", ".join(unknown[:_MAX_NAMED]) + (", …" if len(unknown) > _MAX_NAMED else "")
        detail = f"{len(unknown)} of {name} omitted, not in the catalog: {named}"
        notes.append(Degradation(DegradationKind.UNKNOWN_ITEMS, detail))
    return known


def required_rows(domain: ServedDomain, item_ids: Sequence[str], name: str, notes: list[Degradation]) -> list[int]:
    """As `known_rows`, but raises InputError if no item is known."""
    rows = known_rows(domain, item_ids, name, notes)
    if not rows:
        items = "items of the history" if name == "history" else name
        raise InputError(
            f"none of the {len(item_ids)} {items} is in the catalog of {domain.name}; "
            "give at least one item_id that is",
            field=name,
        )
    return rows


def with_user(
    values: PromptValues, domain: ServedDomain, template: Template, query: UserQuery, notes: list[Degradation]
) -> PromptValues:
    """The values with the user's index and name, from the domain's table of users or, without one, from the request."""
    index, name = query.user_id, query.user_name or query.user_id
    if query.user_id is None:
        index, name = ANONYMOUS_INDEX, query.user_name or f"user_{ANONYMOUS_INDEX}"
        if template.needs("user_index") or (template.needs("user_name") and query.user_name is None):
            detail = f"template {template.template_id} refers to a user that the request does not identify"
            notes.append(Degradation(DegradationKind.ANONYMOUS_USER, detail))
    elif (users := domain.users) is not None:
        row = users.row_of(query.user_id)
        if row is None:
            index = ANONYMOUS_INDEX
            detail = f"user {query.user_id} is not among the users of {domain.name}"
            notes.append(Degradation(DegradationKind.UNKNOWN_USER, detail))
        else:
            index, name = users.index(row), query.user_name or users.name(row) or query.user_id
    return replace(values, user_index=index or ANONYMOUS_INDEX, user_name=name or ANONYMOUS_INDEX)


def note_truncation(prompts: Sequence[Prompt], notes: list[Degradation]) -> None:
    if any(prompt.is_truncated for prompt in prompts):
        truncated = [prompt for prompt in prompts if prompt.is_truncated]
        longest = max(prompt.num_tokens_untruncated for prompt in truncated)
        detail = f"the prompt has {longest} tokens; the model reads only the first {truncated[0].num_tokens}"
        notes.append(Degradation(DegradationKind.PROMPT_TRUNCATED, detail))

"""Attribution: what each item of a prompt, and its picture, contributed to the recommended items.

Leave-one-out: the recommended items are scored again for the whole prompt, and for prompts that lack one item or see
zeros instead of one picture. An effect is what an item's log-probability loses, in nats.
"""

# K recommended items of a series, V variants of its prompt, P prompts of the plan

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from model.degradation import Degradation
from model.engine.plans import AttributionPlan
from model.engine.protocol import LogProbs
from model.errors import InputError
from model.planning.arguments import known_rows, template_of, with_user
from model.planning.costs import Cost
from model.planning.domain import ServedDomain
from model.planning.images import without_images
from model.planning.queries import DirectQuery, SequentialQuery
from model.planning.rankings import yes_no_targets
from model.prompts.assembly import PromptValues
from model.prompts.prompt import Prompt
from model.prompts.templates import Template

PartKind: TypeAlias = Literal["item", "image"]

MAX_EFFECTS = 1_000
"""Most items of the prompt, times recommended items."""


@dataclass(frozen=True)
class Part:
    """An item of the prompt, by its catalog row, or only its picture."""

    row: int
    kind: PartKind


@dataclass(frozen=True)
class Effect:
    """What a recommended item's log-probability loses without a part, in nats; negative if it gains."""

    part: Part
    nats: float


@dataclass(frozen=True)
class Series:
    """Variants of one prompt: the complete one, then one without each of the parts.

    All items are targets of a template that generates items; one that asks yes or no has a series for each item.
    """

    ranked: tuple[int, ...]  # [K], catalog rows
    parts: tuple[Part, ...]  # [V - 1]
    are_candidates: bool = False
    """Whether the prompt asks which of its items to recommend, so that none is chosen that it lacks."""

    @property
    def num_variants(self) -> int:
        return 1 + len(self.parts)

    def effects(self, log_probs: LogProbs, *, is_pointwise: bool) -> Iterator[list[Effect]]:
        """For each item, the effects of all parts, the largest first. `log_probs` [V, targets] are the variants'."""
        scores = np.asarray(log_probs, dtype=np.float64)
        if is_pointwise:  # log P(yes) / (P(yes) + P(no))
            scores = (scores[:, 0] - np.logaddexp(scores[:, 0], scores[:, 1]))[:, np.newaxis]
        for item, losses in zip(self.ranked, (scores[:1] - scores[1:]).T.tolist(), strict=True):
            effects = [Effect(part, nats) for part, nats in zip(self.parts, losses, strict=True)]
            shown = [each for each in effects if not (self.are_candidates and each.part == Part(item, "item"))]
            yield sorted(shown, key=lambda effect: -effect.nats)


@dataclass(frozen=True, eq=False)
class Attribution:
    """A plan whose P prompts are the variants of all series, one after the other."""

    plan: AttributionPlan
    series: tuple[Series, ...]
    is_pointwise: bool

    def masked(self, plan: AttributionPlan, domain: ServedDomain) -> AttributionPlan:
        """The plan with fetched features, whose variants without a picture see zeros in its place."""
        hidden = [
            (part.row,) if part is not None and part.kind == "image" else ()
            for series in self.series
            for part in (None, *series.parts)
        ]
        return without_images(plan, domain, hidden)

    def effects(self, log_probs: LogProbs) -> list[list[Effect]]:
        """For each recommended item, the effects of all parts, the largest first. `log_probs` are the plan's."""
        found: list[list[Effect]] = []
        start = 0
        for series in self.series:
            end = start + series.num_variants
            found += series.effects(log_probs[start:end], is_pointwise=self.is_pointwise)
            start = end
        return found


def attribution_tokens(cost: Cost, num_items: int, k: int, max_tokens: int) -> int:
    """Estimated tokens of the prompts that attribute k items of a query of this cost to `num_items` items.

    Raises InputError if these are too many.
    """
    if num_items * k > MAX_EFFECTS:
        raise InputError(
            f"attribution of k = {k} items to {num_items} items of the prompt takes {num_items * k} effects, the limit "
            f"is {MAX_EFFECTS}; lower k, or send fewer items",
            field="attribution",
        )
    num_series = min(k, cost.num_prompts) if cost.is_pointwise else 1
    num_tokens = num_series * (1 + 2 * num_items) * cost.tokens_per_prompt
    if num_tokens > max_tokens:
        raise InputError(
            f"attribution of k = {k} items to {num_items} items of the prompt takes about {num_tokens} tokens, the "
            f"limit is {max_tokens}; send fewer items",
            field="attribution",
        )
    return num_tokens


def attribute_sequential(domain: ServedDomain, query: SequentialQuery, ranked: Sequence[int]) -> Attribution:
    """Attribute the recommended catalog rows to the items of the history. The query must have been planned before."""
    template = template_of(domain, query.template or domain.spec.prompts.sequential, "sequential")
    notes: list[Degradation] = []  # the ranking's answer has them
    history = known_rows(domain, query.history, "history", notes)
    values = with_user(PromptValues(history=tuple(history)), domain, template, query, notes)
    parts = _parts(domain, history)
    if template.target == "yes_no":
        series = tuple(Series((item,), parts) for item in ranked)
    else:
        series = (Series(tuple(ranked), parts),)
    return _attribution(domain, template, values, series)


def attribute_direct(domain: ServedDomain, query: DirectQuery, ranked: Sequence[int]) -> Attribution:
    """Attribute the recommended catalog rows to the candidates in the prompt. The query must have been planned before.

    Templates that ask yes or no show one candidate, of which only the picture can be left out.
    """
    template = template_of(domain, query.template or domain.spec.prompts.direct, "direct")
    notes: list[Degradation] = []
    candidates = known_rows(domain, query.candidates or (), "candidates", notes)
    values = with_user(PromptValues(candidates=tuple(candidates)), domain, template, query, notes)
    parts = _parts(domain, candidates)
    if template.target == "yes_no":
        series = tuple(Series((item,), tuple(part for part in parts if part == Part(item, "image"))) for item in ranked)
    else:
        series = (Series(tuple(ranked), parts, are_candidates=True),)
    return _attribution(domain, template, values, series)


def _parts(domain: ServedDomain, rows: Sequence[int]) -> tuple[Part, ...]:
    kinds: tuple[PartKind, ...] = ("item", "image") if domain.spec.layout.visual_tokens else ("item",)
    return tuple(Part(row, kind) for row in dict.fromkeys(rows) for kind in kinds)


def _attribution(
    domain: ServedDomain, template: Template, values: PromptValues, series: tuple[Series, ...]
) -> Attribution:
    is_pointwise = template.target == "yes_no"
    prompts = [prompt for each in series for prompt in _variants(domain, template, values, each)]
    plan = AttributionPlan(
        slot=domain.slot,
        task=template.task,
        template=template.template_id,
        prompts=tuple(prompts),
        targets=yes_no_targets(domain) if is_pointwise else _identifiers(domain, series[0].ranked),
        leaves=tuple(range(len(prompts))),
    )
    return Attribution(plan, series, is_pointwise)


def _variants(domain: ServedDomain, template: Template, values: PromptValues, series: Series) -> Iterator[Prompt]:
    if template.target == "yes_no":
        values = replace(values, item=series.ranked[0])
    complete = domain.assembler.assemble(template, values)
    yield complete
    for part in series.parts:
        yield complete if part.kind == "image" else domain.assembler.assemble(template, _without(values, part.row))


def _without(values: PromptValues, row: int) -> PromptValues:
    history, candidates = (tuple(each for each in rows if each != row) for rows in (values.history, values.candidates))
    return replace(values, history=history, candidates=candidates)


def _identifiers(domain: ServedDomain, rows: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    eos_id = domain.tokenizer.eos_id
    return tuple((*domain.assembler.identifiers.row(row).tolist(), eos_id) for row in rows)

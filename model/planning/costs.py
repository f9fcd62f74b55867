"""What a query will cost the model, estimated from its fields alone, before anything is assembled or fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import InputError
from model.planning.domain import ServedDomain
from model.planning.queries import DirectQuery, RankingQuery, SequentialQuery
from model.planning.rankings import DEFAULT_BEAMS
from model.prompts.templates import Template

_TEXT_TOKENS = 64
"""A template's own words, and a title; user names are counted apart."""


_LEAVES_PER_TOKEN = 32_768
"""Items whose boosts are compiled in the time of a token: 1 ms for 100,000 items (benchmarks/merchandising.py)."""


def boost_tokens(num_items: int) -> int:
    return -(-num_items // _LEAVES_PER_TOKEN)


@dataclass(frozen=True)
class Cost:
    """Estimated size of a ranking: prompts to encode, tokens of each at most, and beams of the search."""

    num_prompts: int
    tokens_per_prompt: int
    num_beams: int
    field: str
    """The field with an item for each prompt."""
    boost_tokens: int = 0
    """As many tokens as compiling the query's boosts takes time."""

    @property
    def is_pointwise(self) -> bool:
        """Whether each prompt asks yes or no about one item, which needs no search."""
        return self.num_beams == 0

    @property
    def num_tokens(self) -> int:
        return self.num_prompts * self.tokens_per_prompt

    def check(self, max_tokens: int) -> None:
        """Raises InputError if the prompts together have more tokens than allowed."""
        if self.num_tokens > max_tokens and self.num_prompts > 1:
            raise InputError(
                f"the template asks about each of {self.num_prompts} items of {self.field} in a prompt of about "
                f"{self.tokens_per_prompt} tokens, {self.num_tokens} in all; the limit is {max_tokens}: send at most "
                f"{max(1, max_tokens // self.tokens_per_prompt)} in one request, or a shorter history",
                field=self.field,
            )


def sequential_cost(domain: ServedDomain, query: SequentialQuery) -> Cost:
    """The cost of a query that planning has not checked yet."""
    template = domain.templates.get(query.template or domain.spec.prompts.sequential)
    return _cost(domain, query, template, query.include_items or (), "include_items", len(query.history))


def direct_cost(domain: ServedDomain, query: DirectQuery) -> Cost:
    """The cost of a query that planning has not checked yet."""
    template = domain.templates.get(query.template or domain.spec.prompts.direct)
    candidates = query.candidates or ()
    num_listed = 0 if _is_pointwise(template) else len(candidates)
    return _cost(domain, query, template, candidates, "candidates", num_listed)


def _cost(
    domain: ServedDomain,
    query: RankingQuery,
    template: Template | None,
    candidates: Sequence[str],
    field: str,
    num_listed: int,
) -> Cost:
    """`num_listed` is the number of items in each prompt, apart from the one that it asks about."""
    is_pointwise = _is_pointwise(template)
    named = len(query.user_name or "") if template is not None and template.needs("user_name") else 0
    num_tokens = _TEXT_TOKENS + named + round((num_listed + is_pointwise) * domain.assembler.tokens_per_item)
    return Cost(
        num_prompts=max(1, len(set(candidates))) if is_pointwise else 1,
        tokens_per_prompt=min(num_tokens, domain.spec.prompts.max_tokens),
        num_beams=0 if is_pointwise else query.num_beams or max(DEFAULT_BEAMS, query.k),
        field=field,
        boost_tokens=boost_tokens(domain.trie.num_leaves) if query.boost is not None else 0,
    )


def _is_pointwise(template: Template | None) -> bool:
    return template is not None and template.target == "yes_no"

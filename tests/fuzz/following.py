"""Follows the links of `tests.fuzz.links`: makes the next request of an answer, with what the answer brought."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.fuzz.drafts import Draft, varied
from tests.fuzz.links import LINKS

MISSING: Any = object()
_BY_SOURCE: dict[str, list[tuple[str, dict[str, str], dict[str, Any]]]] = defaultdict(list)
for _source, _target, _places, _body in LINKS:
    _BY_SOURCE[_source].append((_target, _places, _body))


def next_of(draft: Draft, content: bytes, drafts: Mapping[str, Sequence[Draft]], chance: Random) -> Draft | None:
    """A request that follows from a request and its answer, if any does."""
    links = [link for link in _BY_SOURCE.get(draft.operation, ()) if link[0] in drafts]
    if not links:
        return None
    target, places, body = chance.choice(links)
    try:
        answer = json.loads(content) if content else None
    except ValueError:
        return None
    found = varied(drafts[target], chance)

    def value_of(expression: object) -> Any:  # noqa: ANN401  # JSON
        if isinstance(expression, list):
            inner = [value_of(each) for each in expression]
            return [each for each in inner if each is not MISSING]
        return _value(str(expression), draft, answer, chance)

    values = {name: value_of(each) for name, each in places.items()}
    given = {name: value_of(each) for name, each in body.items()}
    if isinstance(found.body, dict):
        found.body.update((name, value) for name, value in given.items() if value is not MISSING)
    known = {name: each for name, each in values.items() if each is not MISSING}
    return replace(found, places={**found.places, **known})


def _value(expression: str, draft: Draft, answer: object, chance: Random) -> Any:  # noqa: ANN401  # JSON
    """What a runtime expression of OpenAPI stands for; `*` is any element of a list."""
    where, _, pointer = expression.partition("#")
    if where.startswith("$request.path."):
        return draft.places.get(where.removeprefix("$request.path."), MISSING)
    value: Any = answer if where == "$response.body" else draft.body
    for name in pointer.strip("/").split("/"):
        if name == "*" and isinstance(value, list) and value:
            value = chance.choice(value)
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            return MISSING
    return value

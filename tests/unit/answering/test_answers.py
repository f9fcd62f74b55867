"""Answers are what their description for clients says."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace
from pydantic import BaseModel

from service.answering.answers import Cause, Degraded, Recommendation, RecommendedItem
from service.schemas.base import DegradedBody
from service.schemas.ranking import RankedItem, RankingAnswer, Reason, TimingsBody

ITEM = RecommendedItem(1, "ä\u2028-1", -2.9246740341186523, None, "a/b.webp", {"tags": ("x", "y"), "price": 1e-7})
TIMINGS = {"plan": 0.1, "features": 0.2, "queue": 0.3, "encode": 0.4, "decode": 0.5, "total": 1.5}
ANSWER = Recommendation([ITEM], 1, 20, [Degraded("missing_features", "1 of 2")], "toys", "0" * 64, 3, "id", TIMINGS)


@pytest.mark.parametrize(
    ("answer", "description"),
    [(Recommendation, RankingAnswer), (RecommendedItem, RankedItem), (Cause, Reason), (Degraded, DegradedBody)],
)
def test_answers_have_the_described_fields_in_order(answer: type[msgspec.Struct], description: type[BaseModel]) -> None:
    assert list(answer.__struct_fields__) == list(description.model_fields)


EXPLAINED = replace(
    ANSWER,
    items=[replace(ITEM, because=[Cause("b", "image", -0.25)]), replace(ITEM, because=[])],
    timings_ms={name: TIMINGS.get(name, 9.5) for name in TimingsBody.model_fields},
)


@pytest.mark.parametrize("answer", [ANSWER, EXPLAINED, Recommendation([], 0, 0, [], "toys", "0" * 64, 0, "id")])
def test_an_answer_is_the_bytes_that_its_description_would_give(answer: Recommendation) -> None:
    assert answer.json() == RankingAnswer.model_validate_json(answer.json()).model_dump_json().encode()


def test_scores_that_are_not_finite_are_null() -> None:
    answer = Recommendation([RecommendedItem(1, "a", float("nan"), "t", None, {})], 0, 20, [], "toys", "", 0, "id")
    assert json.loads(answer.json())["items"][0]["score"] is None

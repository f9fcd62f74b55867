"""BLEU against sacrebleu's own corpus score, ROUGE and rating errors against hand-computed values."""

from __future__ import annotations

import math

import pytest
from sacrebleu.metrics.bleu import BLEU

from model.evaluation.texts import ScoredText, rating_estimates, text_estimates

REFERENCES = [
    "my kids love this toy and play with it all day",
    "it broke after one day of play",
    "great value for the price , would buy again",
]
TEXTS = ["my kids love this toy a lot", "it broke after a day of play", "great value for the money"]


def scored(
    texts: list[str], references: list[str], given: list[float | None] | None = None, true: float | None = 4.0
) -> list[ScoredText]:
    ratings = given or [None] * len(texts)
    return [
        ScoredText(user=user, text=text, reference=reference, star_rating=rating, true_rating=true)
        for user, (text, reference, rating) in enumerate(zip(texts, references, ratings, strict=True))
    ]


def test_bleu_is_that_of_sacrebleu_for_the_whole_corpus() -> None:
    found = text_estimates(scored(TEXTS, REFERENCES), seed=0)
    for order in (1, 4):
        reference = BLEU(max_ngram_order=order).corpus_score(TEXTS, [REFERENCES])
        assert found[f"bleu-{order}"].value == pytest.approx(reference.score)
        assert 0 < found[f"bleu-{order}"].value < 100


def test_rouge_is_the_mean_of_f_measures() -> None:
    found = text_estimates(scored(["the cat sat", "a dog"], ["the cat ran", "a dog"]), seed=0)
    assert found["rouge-1"].value == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["rouge-2"].value == pytest.approx(100 * (1 / 2 + 1) / 2)
    assert found["rouge-l"].value == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_a_text_equal_to_its_reference_gets_full_marks_and_an_empty_one_none() -> None:
    same = text_estimates(scored(REFERENCES, REFERENCES), seed=0)
    assert {name: round(estimate.value, 6) for name, estimate in same.items()} == dict.fromkeys(same, 100.0)
    empty = text_estimates(scored(["", "", ""], REFERENCES), seed=0)
    assert {estimate.value for estimate in empty.values()} == {0.0}


def test_rating_errors_count_only_texts_that_gave_a_rating() -> None:
    found = rating_estimates(scored(TEXTS, REFERENCES, [5.0, None, 2.0]), seed=0)
    assert found["rmse"].value == pytest.approx(math.sqrt((1 + 4) / 2))
    assert found["mae"].value == pytest.approx(1.5)


def test_no_rating_gives_no_error_of_ratings() -> None:
    assert rating_estimates(scored(TEXTS, REFERENCES), seed=0) == {}
    assert rating_estimates(scored(TEXTS, REFERENCES, [5.0, 4.0, 3.0], true=None), seed=0) == {}

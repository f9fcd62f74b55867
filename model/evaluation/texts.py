"""Metrics of generated explanations: BLEU and ROUGE against the user's own text, and errors of predicted ratings.

BLEU is corpus BLEU, as in VIP5: n-gram matches are summed over all texts before precisions are computed. ROUGE is the
mean F measure of the texts.
"""

# Q texts

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from model.evaluation.metrics import Estimate, Floats, Measured

_ORDERS = (1, 4)
_ROUGE = {"rouge1": "rouge-1", "rouge2": "rouge-2", "rougeL": "rouge-l"}
_NUM_BLEU = 2 * max(_ORDERS) + 2


@dataclass(frozen=True)
class ScoredText:
    """A generated text and its reference; a missing rating is None."""

    user: int
    text: str
    reference: str
    star_rating: float | None
    true_rating: float | None


def text_estimates(texts: Sequence[ScoredText], seed: int) -> dict[str, Estimate]:
    """BLEU-1, BLEU-4 and ROUGE-1, -2, -L (F), all times 100."""
    return measured_texts(texts).estimates(seed)


def measured_texts(texts: Sequence[ScoredText]) -> Measured:
    """What `text_estimates` are computed from, [Q, 14]."""
    statistics = np.column_stack([_bleu_statistics(texts), _rouge(texts), np.ones(len(texts))])
    return Measured(np.array([text.user for text in texts]), statistics, _text_figures)


def rating_estimates(texts: Sequence[ScoredText], seed: int) -> dict[str, Estimate]:
    """RMSE and MAE in stars, over texts with a predicted and a true rating; empty if there are none."""
    is_rated = have_ratings(texts)
    return measured_ratings(texts).estimates(seed) if is_rated.any() else {}


def have_ratings(texts: Sequence[ScoredText]) -> NDArray[np.bool_]:
    """Whether each text has a predicted and a true rating, [Q]."""
    return np.array([text.star_rating is not None and text.true_rating is not None for text in texts], dtype=np.bool_)


def measured_ratings(texts: Sequence[ScoredText]) -> Measured:
    """What `rating_estimates` are computed from, for the texts that have both ratings."""
    rated = [
        (text.user, text.star_rating - text.true_rating)
        for text in texts
        if text.star_rating is not None and text.true_rating is not None
    ]
    users, errors = np.array([user for user, _ in rated]), np.array([error for _, error in rated])
    return Measured(users, np.column_stack([errors**2, np.abs(errors), np.ones(len(errors))]), _rating_figures)


def _rating_figures(sums: Floats) -> Mapping[str, Floats]:
    return {"rmse": np.sqrt(sums[..., 0] / sums[..., 2]), "mae": sums[..., 1] / sums[..., 2]}


def _text_figures(sums: Floats) -> Mapping[str, Floats]:
    figures = {f"bleu-{order}": _bleu(sums[..., :_NUM_BLEU], order) for order in _ORDERS}
    for place, name in enumerate(_ROUGE.values(), start=_NUM_BLEU):
        figures[name] = 100 * sums[..., place] / sums[..., -1]
    return figures


def _bleu_statistics(texts: Sequence[ScoredText]) -> Floats:
    """Matches and numbers of n-grams for n up to 4, and both lengths, [Q, 10]."""
    highest = max(_ORDERS)
    scorer = BLEU(max_ngram_order=highest, effective_order=True)
    rows = []
    for text in texts:
        score = scorer.sentence_score(text.text, [text.reference])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=np.float64)


def _bleu(sums: Floats, order: int) -> Floats:
    """Corpus BLEU by sacrebleu from summed statistics, [..., 10] → [...]."""
    highest = max(_ORDERS)
    scores = [
        BLEU.compute_bleu(
            correct=[int(count) for count in row[:order]],
            total=[int(count) for count in row[highest : highest + order]],
            sys_len=int(row[-2]),
            ref_len=int(row[-1]),
            smooth_method="exp",
            max_ngram_order=order,
        ).score
        for row in sums.reshape(-1, _NUM_BLEU)
    ]
    return np.array(scores).reshape(sums.shape[:-1])


def _rouge(texts: Sequence[ScoredText]) -> NDArray[np.float64]:
    """F measures, [Q, 3]."""
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 — imports NLTK, which takes seconds

    scorer = RougeScorer(list(_ROUGE), use_stemmer=False)
    scored = [scorer.score(text.reference, text.text) for text in texts]
    return np.array([[each[name].fmeasure for name in _ROUGE] for each in scored])

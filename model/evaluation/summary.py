"""Metrics of answers."""

# Q questions

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.evaluation.answers import ExactAnswer, RankedAnswer, TextAnswer
from model.evaluation.baselines import candidate_lists, catalog_lists, fit_baseline, ranks_in
from model.evaluation.beyond_accuracy import BeyondAccuracy
from model.evaluation.held_out import HeldOut
from model.evaluation.metrics import CUTOFFS, mean_estimates, ranking_statistics
from model.evaluation.options import NUM_ANSWERED
from model.evaluation.report import ExactComparison, Proofs, Result
from model.evaluation.texts import ScoredText, rating_estimates, text_estimates
from model.network.config import Task
from model.prompts.templates import Template


def ranked_result(
    held_out: HeldOut, beyond: BeyondAccuracy, template: Template, answers: Sequence[RankedAnswer]
) -> Result:
    """The metrics of a template that ranks items."""
    users = np.array([answer.user for answer in answers])
    ranks = _ranks(held_out, answers)
    columns = ranking_statistics(ranks)
    exposure, groups = beyond.of_answers(answers, ranks)
    proven = np.array([answer.exact_prefix for answer in answers])
    return Result(
        task=template.task,
        name=template.template_id,
        is_baseline=False,
        num_users=len(set(users.tolist())),
        num_questions=len(answers),
        metrics=mean_estimates(columns, users, held_out.options.seed),
        seconds=sum(answer.seconds for answer in answers),
        num_candidates=float(np.mean([answer.num_candidates for answer in answers])),
        proofs=Proofs(
            mean=float(proven.mean()), share_by_length={str(k): float((proven >= k).mean()) for k in CUTOFFS}
        ),
        degraded=_degraded(answers),
        num_users_left_out=len(held_out.users) - len(set(users.tolist())),
        num_out_of_reach=held_out.num_out_of_reach(users, among_candidates=template.task == "direct"),
        exposure=exposure,
        groups=groups,
    )


def text_result(held_out: HeldOut, beyond: BeyondAccuracy, template: Template, answers: Sequence[TextAnswer]) -> Result:
    """The metrics of a template that generates explanations."""
    texts = [_scored(held_out, answer) for answer in answers]
    seed = held_out.options.seed
    metrics = text_estimates(texts, seed)
    num_unrated = None
    if template.predicts_rating:
        metrics |= rating_estimates(texts, seed)
        num_unrated = sum(text.star_rating is None for text in texts)
    return Result(
        task=template.task,
        name=template.template_id,
        is_baseline=False,
        num_users=len({text.user for text in texts}),
        num_questions=len(answers),
        metrics=metrics,
        seconds=sum(answer.seconds for answer in answers),
        degraded=_degraded(answers),
        num_unrated=num_unrated,
        groups=beyond.of_texts(texts, [held_out.reviews[answer.review].item for answer in answers]),
    )


def baseline_results(held_out: HeldOut, beyond: BeyondAccuracy, name: str, tasks: Iterable[Task]) -> list[Result]:
    """The metrics of a baseline by ranking task; the time of the first task includes fitting."""
    started_at = time.perf_counter()
    baseline = fit_baseline(name, held_out)
    results = []
    for task in tasks:
        is_direct = task == "direct"
        lists = candidate_lists(baseline, held_out) if is_direct else catalog_lists(baseline, held_out)
        users = held_out.asked_users(among_candidates=is_direct)
        ranks = ranks_in(lists, [held_out.target(user) for user in users.tolist()])
        seconds = time.perf_counter() - started_at
        exposure, groups = beyond.of_lists(users, lists, ranks)
        candidates = [len(held_out.candidates(user)) for user in users.tolist()] if is_direct else []
        result = Result(
            task=task,
            name=name,
            is_baseline=True,
            num_users=len(ranks),
            num_questions=len(ranks),
            metrics=mean_estimates(ranking_statistics(ranks), users, held_out.options.seed),
            seconds=seconds,
            num_candidates=float(np.mean(candidates)) if is_direct else float(held_out.is_returnable.sum()),
            num_users_left_out=len(held_out.users) - len(users),
            num_out_of_reach=held_out.num_out_of_reach(users, among_candidates=is_direct),
            exposure=exposure,
            groups=groups,
        )
        results.append(result)
        started_at = time.perf_counter()
    return results


def exact_comparison(
    held_out: HeldOut, template: Template, ranked: Sequence[RankedAnswer], exact: Sequence[ExactAnswer]
) -> ExactComparison:
    """Compare beam search with the exact ranking, for the users that have both."""
    by_user = {answer.user: answer for answer in ranked}
    beams = [by_user[answer.user] for answer in exact]
    pairs = [(beam.item_ids, true.item_ids) for beam, true in zip(beams, exact, strict=True)]
    users, seed = np.array([answer.user for answer in exact]), held_out.options.seed
    found, true = (ranking_statistics(_ranks(held_out, answers)) for answers in (beams, exact))
    return ExactComparison(
        name=template.template_id,
        num_users=len(exact),
        same_order=float(np.mean([beam == best for beam, best in pairs])),
        same_items=float(np.mean([set(beam) == set(best) for beam, best in pairs])),
        recall=float(np.mean([len(set(beam) & set(best)) / max(len(best), 1) for beam, best in pairs])),
        share_certified=float(np.mean([answer.is_certified for answer in exact])),
        mean_certified_beams=float(np.mean([answer.num_beams for answer in exact])),
        beam_metrics=mean_estimates(found, users, seed),
        exact_metrics=mean_estimates(true, users, seed),
        differences=mean_estimates({name: found[name] - true[name] for name in found}, users, seed),
        seconds=sum(answer.seconds for answer in exact),
    )


def _ranks(held_out: HeldOut, answers: Sequence[RankedAnswer] | Sequence[ExactAnswer]) -> NDArray[np.int64]:
    """Rank of each answer's target; 0 if it is not among the items."""
    item_ids = held_out.dataset.catalog.item_ids
    ranks = []
    for answer in answers:
        target = item_ids[held_out.target(answer.user)]
        ranks.append(answer.item_ids.index(target) + 1 if target in answer.item_ids[:NUM_ANSWERED] else 0)
    return np.array(ranks)


def _scored(held_out: HeldOut, answer: TextAnswer) -> ScoredText:
    review = held_out.reviews[answer.review]
    return ScoredText(review.user, answer.text, review.explanation or "", answer.star_rating, review.star_rating)


def _degraded(answers: Sequence[RankedAnswer] | Sequence[TextAnswer]) -> dict[str, int]:
    return dict(sorted(Counter(kind for answer in answers for kind in set(answer.degraded)).items()))

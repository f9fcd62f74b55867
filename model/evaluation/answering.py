"""Answers batches of questions as the service does: look up images, run the engine, map leaves back to items."""

# I images of a prompt, D width of an embedding

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.bundle.features import ItemFeatures
from model.engine.offline import generate, rank
from model.engine.plans import Plan, RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import Engine, GeneratedText, Ranking
from model.engine.scores import ranking_of_scores
from model.evaluation.answers import Answer, ExactAnswer, RankedAnswer, TextAnswer
from model.evaluation.questions import Question
from model.planning.domain import ServedDomain
from model.planning.images import image_rows, with_features
from model.planning.runtime import Runtime

P = TypeVar("P", bound=Plan)

_PROMPTS_TO_SCORE = 32


@dataclass(frozen=True, eq=False)
class ItemImages:
    """Image embeddings of a domain's items; zeros where one is missing."""

    features: ItemFeatures
    row_of: dict[str, int]
    domain: ServedDomain

    @classmethod
    def of(cls, domain: ServedDomain, found: ItemFeatures | None) -> ItemImages:
        """Embeddings of a bundle, or none."""
        features = found or ItemFeatures((), np.zeros((0, domain.spec.layout.feature_dim), dtype=np.float32))
        return cls(features, {item_id: row for row, item_id in enumerate(features.item_ids)}, domain)

    def add_to(self, plan: P) -> P:
        """The plan with features of its images; missing ones are noted as the service would."""
        item_ids = [self.domain.catalog.item_ids[row] for row in image_rows(plan, self.domain)]
        rows = np.array([self.row_of.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        is_present = rows >= 0
        features = np.zeros((len(rows), self.features.dim), dtype=np.float32)
        features[is_present] = self.features.rows(rows[is_present])
        return with_features(plan, self.domain, features, is_present)


@dataclass(frozen=True, eq=False)
class Respondent:
    """Answers batches of questions that share a template."""

    engine: Engine
    domain: ServedDomain
    images: ItemImages

    @classmethod
    def of(cls, runtime: Runtime, domain: ServedDomain, *, with_images: bool) -> Respondent:
        found = runtime.files[domain.name].features if with_images else None
        return cls(runtime.engine, domain, ItemImages.of(domain, found))

    def answer(self, batch: Sequence[tuple[Question, Plan]]) -> list[Answer]:
        """One answer per question, in order."""
        started_at = time.perf_counter()
        questions = [question for question, _ in batch]
        plans = [self.images.add_to(plan) for _, plan in batch]
        answers: list[Answer] = []
        if searches := [plan for plan in plans if isinstance(plan, RankingPlan)]:
            answers += map(self._ranked, questions, searches, rank(self.engine, searches))
        elif scores := [plan for plan in plans if isinstance(plan, ScoringPlan)]:
            log_probs, _ = self.engine.score(scores)
            rankings = partial(ranking_of_scores, is_exact=self.engine.is_exact)
            answers += map(self._ranked, questions, scores, map(rankings, scores, log_probs))
        else:
            texts = [plan for plan in plans if isinstance(plan, TextPlan)]
            answers += map(self._text, questions, texts, generate(self.engine, texts))
        assert len(answers) == len(batch), "a batch mixes kinds of questions"
        return _timed(answers, started_at)

    def answer_exactly(self, batch: Sequence[tuple[Question, Plan]]) -> list[Answer]:
        """The true top of the catalog: by certified search or, where that does not prove all items, by scoring all."""
        answers: list[Answer] = []
        for question, plan in batch:
            started_at = time.perf_counter()
            assert isinstance(plan, RankingPlan)
            certified = replace(self.images.add_to(plan), certified=True)
            (ranking,) = rank(self.engine, [certified])
            is_certified = ranking.exact_prefix == len(ranking.leaves)
            leaves, scores = (ranking.leaves, ranking.scores) if is_certified else self._best_of_all(certified)
            answer = ExactAnswer(
                template=question.template.template_id,
                user=question.subject,
                item_ids=self._item_ids(leaves),
                scores=tuple(scores.tolist()),
                is_certified=is_certified,
                num_beams=ranking.num_beams,
                seconds=0.0,
            )
            answers += _timed([answer], started_at)
        return answers

    def _ranked(self, question: Question, plan: RankingPlan | ScoringPlan, ranking: Ranking) -> RankedAnswer:
        num_candidates = plan.eligibility.num_eligible if isinstance(plan, RankingPlan) else len(plan.prompts)
        return RankedAnswer(
            template=plan.template,
            user=question.subject,
            item_ids=self._item_ids(ranking.leaves),
            scores=tuple(ranking.scores.tolist()),
            exact_prefix=ranking.exact_prefix,
            num_candidates=num_candidates,
            degraded=self._degraded(plan),
            seconds=0.0,
        )

    def _text(self, question: Question, plan: TextPlan, generated: GeneratedText) -> TextAnswer:
        text, star_rating = self.domain.text_of(generated.token_ids), None
        if self.domain.templates[plan.template].predicts_rating:
            star_rating, text = self.domain.rated_text(text)
        return TextAnswer(
            template=plan.template,
            review=question.subject,
            text=text,
            star_rating=star_rating,
            finish_reason=generated.finish_reason,
            degraded=self._degraded(plan),
            seconds=0.0,
        )

    def _best_of_all(self, plan: RankingPlan) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Leaves and scores of the k best, by the log-probability of every eligible identifier."""
        leaves = np.flatnonzero(plan.eligibility.mask())
        rows = self.domain.rows_of(leaves)
        identifiers = [self.domain.assembler.identifiers.row(row) for row in rows.tolist()]
        eos = self.domain.tokenizer.eos_id
        targets = [(*identifier.tolist(), eos) for identifier in identifiers]
        parts = [part for part in (targets[start::_PROMPTS_TO_SCORE] for start in range(_PROMPTS_TO_SCORE)) if part]
        scored, _ = self.engine.score([ScoringPlan.of(plan, tuple(part)) for part in parts])
        log_probs = np.empty(len(leaves))
        for start, (part,) in enumerate(scored):
            log_probs[start::_PROMPTS_TO_SCORE] = part
        # A search counts the start token and not `</s>`, so the lengths are equal.
        scores = log_probs / np.array([len(target) for target in targets]) ** plan.length_penalty
        best = np.argsort(-scores, kind="stable")[: plan.k]
        return leaves[best], scores[best]

    def _degraded(self, plan: Plan) -> tuple[str, ...]:
        return tuple(each.kind for each in (*plan.degraded, *self.domain.degraded))

    def _item_ids(self, leaves: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self.domain.catalog.item_ids[row] for row in self.domain.rows_of(leaves).tolist())


def _timed(answers: Sequence[Answer], started_at: float) -> list[Answer]:
    """The answers, each with an equal share of the batch's time."""
    share = (time.perf_counter() - started_at) / len(answers)
    return [msgspec.structs.replace(answer, seconds=share) for answer in answers]

"""Puts batches of questions to the engine, as the service does: look images up, run, map leaves back to items."""

# I images of a prompt, D width of an embedding

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.bundle.features import load_features
from model.engine.protocol import Engine, RankingWork, ScoringWork
from model.evaluation.answers import Answer, ExactAnswer, RankedAnswer, TextAnswer
from model.evaluation.questions import Plan, Question
from model.planning.domain import ServedDomain
from model.planning.plans import PointwisePlan, RankingPlan, TextPlan
from model.planning.runtime import Runtime
from model.prompts.prompt import Prompt

_ROWS_TO_SCORE = 32


@dataclass(frozen=True, eq=False)
class PromptImages:
    """Image embeddings of a domain's items, zeros where there are none."""

    by_row: NDArray[np.floating]  # [F, D]
    row_of: dict[str, int]
    domain: ServedDomain

    @classmethod
    def of(cls, domain: ServedDomain, path: Path | None) -> PromptImages:
        """Those of a bundle's file; none without one. Raises BundleError."""
        if path is None:
            return cls(np.zeros((0, domain.spec.layout.feature_dim), dtype=np.float32), {}, domain)
        found = load_features(path)
        return cls(found.features, {item_id: row for row, item_id in enumerate(found.item_ids)}, domain)

    def read(self, prompt: Prompt) -> NDArray[np.float32]:
        """Embeddings of a prompt's images, [I, D]."""
        features = np.zeros((len(prompt.image_items), self.by_row.shape[1]), dtype=np.float32)
        for place, row in enumerate(self._rows(prompt)):
            if row is not None:
                features[place] = self.by_row[row]
        return features

    def lacks_some(self, prompts: Sequence[Prompt]) -> bool:
        """Whether the service would call the answer degraded."""
        return any(row is None for prompt in prompts for row in self._rows(prompt))

    def _rows(self, prompt: Prompt) -> list[int | None]:
        item_ids = self.domain.catalog.item_ids
        return [self.row_of.get(item_ids[item]) for item in prompt.image_items]


@dataclass(frozen=True, eq=False)
class Respondent:
    """Answers batches of questions that share a template."""

    engine: Engine
    domain: ServedDomain
    images: PromptImages

    @classmethod
    def of(cls, runtime: Runtime, domain: ServedDomain, *, with_images: bool) -> Respondent:
        path = runtime.feature_files.get(domain.name) if with_images else None
        return cls(runtime.engine, domain, PromptImages.of(domain, path))

    def answer(self, batch: Sequence[tuple[Question, Plan]]) -> list[Answer]:
        """One answer per question, in order."""
        started_at = time.perf_counter()
        answers: list[Answer] = []
        if isinstance(batch[0][1], RankingPlan):
            answers += self._rank([(question, plan) for question, plan in batch if isinstance(plan, RankingPlan)])
        elif isinstance(batch[0][1], PointwisePlan):
            answers += self._score([(question, plan) for question, plan in batch if isinstance(plan, PointwisePlan)])
        else:
            answers += self._explain([(question, plan) for question, plan in batch if isinstance(plan, TextPlan)])
        assert len(answers) == len(batch), "a batch mixes kinds of questions"
        return _timed(answers, started_at)

    def answer_exactly(self, batch: Sequence[tuple[Question, Plan]]) -> list[Answer]:
        """The true top of the catalog: certified, or by scoring every identifier where the search proves too little."""
        answers: list[Answer] = []
        for question, plan in batch:
            started_at = time.perf_counter()
            assert isinstance(plan, RankingPlan)
            work = replace(plan, certified=True).work(self._features(plan))
            (ranking,), _ = self.engine.rank([work])
            is_certified = ranking.exact_prefix == len(ranking.leaves)
            leaves, scores = (ranking.leaves, ranking.scores) if is_certified else self._best_of_all(work)
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

    def _rank(self, batch: Sequence[tuple[Question, RankingPlan]]) -> list[RankedAnswer]:
        rankings, _ = self.engine.rank([plan.work(self._features(plan)) for _, plan in batch])
        return [
            self._ranked(question, plan, self._item_ids(ranking.leaves), ranking.scores.tolist(), ranking.exact_prefix)
            for (question, plan), ranking in zip(batch, rankings, strict=True)
        ]

    def _score(self, batch: Sequence[tuple[Question, PointwisePlan]]) -> list[RankedAnswer]:
        """Every candidate is scored, so whatever is returned is the true top."""
        works = [plan.work(self._features(plan)) for _, plan in batch]
        log_probs, _ = self.engine.score([work for one in works for work in one])
        answers = []
        for (question, plan), own in zip(batch, works, strict=True):
            ranked = plan.rank(log_probs[: len(own)])
            log_probs = log_probs[len(own) :]
            item_ids = tuple(self.domain.catalog.item_ids[row] for row, _ in ranked)
            answers.append(self._ranked(question, plan, item_ids, [score for _, score in ranked], len(ranked)))
        return answers

    def _explain(self, batch: Sequence[tuple[Question, TextPlan]]) -> list[TextAnswer]:
        texts, _ = self.engine.generate([plan.work(self._features(plan)) for _, plan in batch])
        answers = []
        for (question, plan), generated in zip(batch, texts, strict=True):
            text, star_rating = self.domain.text_of(generated.token_ids), None
            if plan.predicts_rating:
                star_rating, text = self.domain.rated_text(text)
            answer = TextAnswer(
                template=plan.template,
                review=question.subject,
                text=text,
                star_rating=star_rating,
                finish_reason=generated.finish_reason,
                degraded=self._degraded(plan),
                seconds=0.0,
            )
            answers.append(answer)
        return answers

    def _ranked(
        self,
        question: Question,
        plan: RankingPlan | PointwisePlan,
        item_ids: tuple[str, ...],
        scores: Sequence[float],
        exact_prefix: int,
    ) -> RankedAnswer:
        num_candidates = plan.eligibility.num_eligible if isinstance(plan, RankingPlan) else len(plan.candidate_rows)
        return RankedAnswer(
            template=plan.template,
            user=question.subject,
            item_ids=item_ids,
            scores=tuple(scores),
            exact_prefix=exact_prefix,
            num_candidates=num_candidates,
            degraded=self._degraded(plan),
            seconds=0.0,
        )

    def _best_of_all(self, work: RankingWork) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Leaves and scores of the k best, by the log-probability of every eligible identifier."""
        leaves = np.flatnonzero(work.eligibility.mask())
        rows = self.domain.rows_of(leaves)
        identifiers = [self.domain.assembler.identifiers.row(row) for row in rows.tolist()]
        eos = self.domain.tokenizer.eos_id
        targets = [(*identifier.tolist(), eos) for identifier in identifiers]
        parts = [part for part in (targets[start::_ROWS_TO_SCORE] for start in range(_ROWS_TO_SCORE)) if part]
        scored, _ = self.engine.score([ScoringWork(work.source, tuple(part)) for part in parts])
        log_probs = np.empty(len(leaves))
        for start, part in enumerate(scored):
            log_probs[start::_ROWS_TO_SCORE] = part
        # A search counts the start token and not `</s>`, which comes to as many as these.
        scores = log_probs / np.array([len(target) for target in targets]) ** work.length_penalty
        best = np.argsort(-scores, kind="stable")[: work.k]
        return leaves[best], scores[best]

    def _features(self, plan: Plan) -> list[NDArray[np.float32]]:
        return [self.images.read(prompt) for prompt in plan.prompts]

    def _degraded(self, plan: Plan) -> tuple[str, ...]:
        """Kinds by the names that the service has for them."""
        kinds = [each.kind for each in plan.degraded]
        if self.images.lacks_some(plan.prompts):
            kinds.append("missing_features")
        if not self.domain.spec.trained:
            kinds.append("untrained_model")
        return tuple(kinds)

    def _item_ids(self, leaves: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self.domain.catalog.item_ids[row] for row in self.domain.rows_of(leaves).tolist())


def _timed(answers: Sequence[Answer], started_at: float) -> list[Answer]:
    """The answers, each with its share of the time that they took together."""
    share = (time.perf_counter() - started_at) / len(answers)
    return [msgspec.structs.replace(answer, seconds=share) for answer in answers]

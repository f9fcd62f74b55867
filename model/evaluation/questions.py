"""Questions to the engine: for each template and user, or review, the query that a client would send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from model.bundle.users import User
from model.datasets.dataset import Review
from model.engine.plans import Plan
from model.errors import DatasetError
from model.evaluation.held_out import HeldOut
from model.evaluation.options import NUM_ANSWERED
from model.network.config import TASKS
from model.planning.domain import ServedDomain
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineDirect, OfflineExplanation, OfflineSequential
from model.planning.rankings import plan_direct, plan_sequential
from model.prompts.templates import Template

Query = OfflineSequential | OfflineDirect | OfflineExplanation


@dataclass(frozen=True)
class Question:
    """`subject` is a user's row or, for an explanation, a position in `HeldOut.reviews`."""

    template: Template
    subject: int
    query: Query


@dataclass(frozen=True, eq=False)
class Questionnaire:
    """All questions about the held-out part of a dataset."""

    held_out: HeldOut
    domain: ServedDomain

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        """The selected templates that the dataset has questions for.

        Raises DatasetError if a task or template was selected by name and the dataset has no questions for it.
        """
        options = self.held_out.options
        chosen: list[Template] = []
        for task in TASKS:
            templates = options.templates_of(task, self.domain.templates)
            usable = [template for template in templates if task != "explanation" or self._reviews(template)]
            unusable = [template.template_id for template in templates if template not in usable]
            if unusable and (options.templates is not None or (task in (options.tasks or ()) and not usable)):
                raise DatasetError(
                    f"no review of {self.held_out.dataset.provenance.name} in the split {options.split} can fill "
                    f"{', '.join(unusable)}; remove these templates, or prepare a dataset with explanations"
                )
            chosen += usable
        return tuple(chosen)

    def questions(self, template: Template) -> list[Question]:
        """All questions of a template, short histories first, so that the prompts of a batch have similar lengths."""
        if template.task == "explanation":
            return [
                Question(template, place, self._explanation_query(template, review))
                for place, review in self._reviews(template)
            ]
        users = self.held_out.asked_users(among_candidates=_among_candidates(template)).tolist()
        if template.task == "sequential":
            users.sort(key=lambda user: len(self.held_out.history(user)))
        return [Question(template, user, self._ranking_query(template, user)) for user in users]

    def exact_questions(self, template: Template) -> list[Question]:
        """The questions to answer exactly as well; none for a template that does not rank the whole catalog."""
        if template.task != "sequential" or template.target != "item":
            return []
        users = self.held_out.exact_users.tolist()
        return [Question(template, user, self._ranking_query(template, user)) for user in users]

    def batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[Question, Plan]]]:
        """Batches of consecutive questions within the token budget, including padding, or of a single question."""
        batch: list[tuple[Question, Plan]] = []
        num_prompts = longest = 0
        for question in questions:
            plan = plan_of(question.query, self.domain)
            lengths = [prompt.num_tokens for prompt in plan.prompts]
            num_prompts, longest = num_prompts + len(lengths), max([longest, *lengths])
            if batch and num_prompts * longest > self.held_out.options.batch_tokens:
                yield batch
                batch, num_prompts, longest = [], len(lengths), max([0, *lengths])
            batch.append((question, plan))
        if batch:
            yield batch

    def _ranking_query(self, template: Template, user: int) -> OfflineSequential | OfflineDirect:
        options = self.held_out.options
        candidates = None
        if _among_candidates(template):
            candidates = self._item_ids(self.held_out.candidates(user).tolist())
        user_id, user_name = self._user(user)
        if template.task == "direct":
            return OfflineDirect(
                candidates=candidates,
                user_id=user_id,
                user_name=user_name,
                template=template.template_id,
                k=NUM_ANSWERED,
                num_beams=options.num_beams,
            )
        return OfflineSequential(
            history=self._item_ids(self.held_out.history(user).tolist()),
            user_id=user_id,
            user_name=user_name,
            template=template.template_id,
            exclude_history=options.exclude_history,
            include_items=candidates,
            k=NUM_ANSWERED,
            num_beams=options.num_beams,
        )

    def _explanation_query(self, template: Template, review: Review) -> OfflineExplanation:
        user_id, user_name = self._user(review.user)
        (item_id,) = self._item_ids([review.item])
        return OfflineExplanation(
            item_id=item_id,
            user_id=user_id,
            user_name=user_name,
            feature=review.feature,
            star_rating=None if review.star_rating is None else round(review.star_rating),
            review_headline=review.headline,
            template=template.template_id,
            max_new_tokens=self.held_out.options.max_new_tokens,
        )

    def _reviews(self, template: Template) -> list[tuple[int, Review]]:
        """Positions and reviews with all that the template names, and a rating if the answer begins with one."""
        return [(place, review) for place, review in enumerate(self.held_out.reviews) if review.can_fill(template)]

    def _user(self, user: int) -> tuple[str, str | None]:
        """The user's id and name in a query; a domain without a table of users takes the model's index and a name."""
        known = self._users[user]
        return (known.user_id, None) if self.domain.users is not None else (known.index, known.name)

    def _item_ids(self, rows: Sequence[int]) -> tuple[str, ...]:
        item_ids = self.held_out.dataset.catalog.item_ids
        return tuple(item_ids[row] for row in rows)

    @cached_property
    def _users(self) -> list[User]:
        return [User(**row) for row in self.held_out.dataset.users.table.to_pylist()]


def _among_candidates(template: Template) -> bool:
    return template.task == "direct" or template.target == "yes_no"


def plan_of(query: Query, domain: ServedDomain) -> Plan:
    """Plan a query; raises InputError or a subclass."""
    match query:
        case OfflineSequential():
            return plan_sequential(domain, query)
        case OfflineDirect():
            return plan_direct(domain, query)
        case OfflineExplanation():
            return plan_explanation(domain, query)

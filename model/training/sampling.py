"""Drawing training samples from a dataset, as VIP5's trainer does.

Target positions, separators, negatives and ratings around a star follow VIP5's published code. A sample depends on the
run's seed and the sample's number only, so a resumed run draws the same samples. All samples of a batch are of one kind
(a domain, and prompts of similar length): a batch that mixed lists of 100 candidates with single items would be mostly
padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.bundle.columns import strings
from model.datasets.dataset import Dataset, Review
from model.errors import TrainingError
from model.network.config import Task
from model.prompts.assembly import PromptAssembler, PromptValues
from model.prompts.prompt import Prompt
from model.prompts.templates import Separator, Template, templates_of
from model.prompts.tokenizer import TextTokenizer
from model.training.config import Prompts
from model.training.last_codes import LastCodes

Family: TypeAlias = Literal["history", "candidates", "single", "explanation"]
"""Prompts of similar length: with a history, with a list of candidates, with one item, and those answered by a text."""

SampledSplit: TypeAlias = Literal["train", "val"]

_LAST_POSITIONS = 3
_FIRST_STARTS = 3
_SHORTEST_HISTORY = 2


@dataclass(frozen=True)
class Sample:
    """A prompt and the tokens of its answer, including `</s>`."""

    task: Task
    template: str
    prompt: Prompt
    target_ids: tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """What the samples of a batch have in common; a kind is drawn with a probability proportional to `weight`."""

    domain: int
    family: Family
    templates: tuple[Template, ...]
    weight: float


def family_of(template: Template) -> Family:
    if template.needs("history"):
        return "history"
    if template.needs("candidates"):
        return "candidates"
    return "single" if template.target == "yes_no" else "explanation"


class DomainSampler:
    """Draws samples of one domain."""

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: TextTokenizer,
        prompts: Prompts,
        *,
        visual_tokens: int,
        templates: Sequence[Template] = (),
    ) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.last_codes = _last_codes(dataset, tokenizer, prompts)
        self.assembler = PromptAssembler(
            tokenizer,
            dataset.catalog.indices,
            dataset.catalog.titles,
            visual_tokens=visual_tokens,
            max_tokens=prompts.max_tokens,
            tokens=None if self.last_codes is None else self.last_codes.tokens,
            templates=templates,
        )
        self._user_indices = strings(dataset.users.table.column("index"))
        self._user_ids = strings(dataset.users.table.column("user_id"))
        self._user_names: list[str | None] = dataset.users.table.column("name").to_pylist()

    def kinds(self, domain: int, split: SampledSplit) -> list[Kind]:
        """Kinds of samples that the dataset allows; families share a task's weight by their number of templates."""
        kinds = []
        for task, weight in self.prompts.tasks.items():
            usable = [template for template in self._templates(task) if self._can_fill(template, split)]
            for family in dict.fromkeys(map(family_of, usable)):
                members = tuple(template for template in usable if family_of(template) == family)
                kinds.append(Kind(domain, family, members, weight * len(members) / len(usable)))
        return [kind for kind in kinds if kind.weight > 0]

    def draw(self, kind: Kind, split: SampledSplit, random: np.random.Generator) -> Sample:
        """One sample of a kind; the template is drawn uniformly."""
        template = kind.templates[random.integers(len(kind.templates))]
        if template.task == "explanation":
            return self._explanation(kind.templates, split, random)
        users = self._users_for(template, split)
        user = int(users[random.integers(len(users))])
        if template.task == "sequential":
            return self._sequential(template, user, split, random)
        return self._direct(template, user, split, random)

    def _sequential(self, template: Template, user: int, split: SampledSplit, random: np.random.Generator) -> Sample:
        history, target = self._history_and_target(user, split, random)
        values = replace(self._user_values(user), history=tuple(history.tolist()))
        if template.target == "yes_no":
            return self._yes_no(template, values, user, target, random)
        separator: Separator = "comma" if random.integers(2) else "arrow"
        self._redraw((*values.history, target), random)
        prompt = self.assembler.assemble(template, values, separator)
        return self._sample(template, prompt, self.assembler.identifiers.row(target).tolist())

    def _history_and_target(
        self, user: int, split: SampledSplit, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], int]:
        """A slice of a user's history, and the item that follows it."""
        sequences = self.dataset.sequences
        if split == "val":
            return self._cut(sequences.seen(user, "val")), sequences.target(user, "val")
        items = sequences.seen(user, "train")
        first = 1 if self.prompts.targets == "all" else max(_SHORTEST_HISTORY, len(items) - _LAST_POSITIONS)
        place = int(random.integers(min(first, len(items) - 1), len(items)))
        start = int(random.integers(max(1, min(_FIRST_STARTS, place - 1))))
        return self._cut(items[start:place]), int(items[place])

    def _cut(self, history: NDArray[np.int64]) -> NDArray[np.int64]:
        longest = self.prompts.max_history
        return history if longest is None else history[-longest:]

    def _direct(self, template: Template, user: int, split: SampledSplit, random: np.random.Generator) -> Sample:
        items = self.dataset.sequences.seen(user, "train")
        target = int(random.choice(items)) if split == "train" else self.dataset.sequences.target(user, "val")
        values = self._user_values(user)
        if template.target == "yes_no":
            return self._yes_no(template, values, user, target, random)
        candidates = np.append(self._negatives(user, self.prompts.num_candidates - 1, random), target)
        random.shuffle(candidates)
        values = replace(values, candidates=tuple(candidates.tolist()))
        self._redraw(values.candidates, random)
        prompt = self.assembler.assemble(template, values)
        return self._sample(template, prompt, self.assembler.identifiers.row(target).tolist())

    def _yes_no(
        self, template: Template, values: PromptValues, user: int, target: int, random: np.random.Generator
    ) -> Sample:
        """Ask about the target, or, with a probability of one half, about an item that the user never had."""
        is_yes = bool(random.integers(2))
        item = target if is_yes else int(self._negatives(user, 1, random)[0])
        self._redraw((*values.history, item), random)
        prompt = self.assembler.assemble(template, replace(values, item=item))
        return self._sample(template, prompt, self.tokenizer.words("yes" if is_yes else "no"))

    def _explanation(self, templates: Sequence[Template], split: SampledSplit, random: np.random.Generator) -> Sample:
        """A review, with one of the templates that it can fill."""
        reviews = self._reviews[split]
        review = reviews[random.integers(len(reviews))]
        fitting = [template for template in templates if review.can_fill(template)]
        template = fitting[random.integers(len(fitting))]
        values = replace(
            self._user_values(review.user),
            item=review.item,
            feature=review.feature or "",
            stars="" if review.star_rating is None else str(round(review.star_rating)),
            headline=review.headline or "",
        )
        text = review.explanation or ""
        if template.predicts_rating:
            text = f"{rating_around(_given(review.star_rating), random)} , {text}"
        self._redraw((review.item,), random)
        return self._sample(template, self.assembler.assemble(template, values), self.tokenizer.words(text))

    def _sample(self, template: Template, prompt: Prompt, words: Sequence[int]) -> Sample:
        longest = self.prompts.max_tokens - 1
        return Sample(template.task, template.template_id, prompt, (*words[:longest], self.tokenizer.eos_id))

    def _redraw(self, items: tuple[int, ...], random: np.random.Generator) -> None:
        """Draw the last codes of a sample's items, if the run says so."""
        if self.last_codes is not None:
            self.last_codes.redraw(items, random)

    def _user_values(self, user: int) -> PromptValues:
        """A user's index and name, as the service fills them in."""
        name = self._user_names[user] or self._user_ids[user]
        return PromptValues(user_index=self._user_indices[user], user_name=name)

    def _negatives(self, user: int, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Distinct items that the user never had, drawn uniformly: [count], or fewer if there are not as many."""
        had = set(self.dataset.sequences.of(user).tolist())
        num_items = len(self.dataset.catalog)
        if count >= num_items - len(had):
            return np.setdiff1d(np.arange(num_items), list(had))
        found: dict[int, None] = {}
        while len(found) < count:
            drawn = random.integers(num_items, size=count - len(found))
            found.update(dict.fromkeys(item for item in drawn.tolist() if item not in had))
        return np.fromiter(found, dtype=np.int64, count=count)

    def _templates(self, task: Task) -> list[Template]:
        of_task = templates_of(task, self.assembler.templates)
        chosen = [template for template in of_task if template.template_id in self.prompts.templates]
        return chosen or of_task

    def _can_fill(self, template: Template, split: SampledSplit) -> bool:
        if template.task == "explanation":
            return any(review.can_fill(template) for review in self._reviews[split])
        return len(self._users_for(template, split)) > 0

    def _users_for(self, template: Template, split: SampledSplit) -> NDArray[np.int64]:
        """Users with a target and, where the template needs an item that the user never had, with such an item."""
        needs_negatives = template.needs("candidates") or template.target == "yes_no"
        return (self._users_with_negatives if needs_negatives else self._users)[split]

    @cached_property
    def _users(self) -> dict[SampledSplit, NDArray[np.int64]]:
        sequences = self.dataset.sequences
        return {"train": sequences.users("train"), "val": sequences.users("val")}

    @cached_property
    def _users_with_negatives(self) -> dict[SampledSplit, NDArray[np.int64]]:
        has_negatives = self.dataset.sequences.have_unknown_items(len(self.dataset.catalog))
        return {split: users[has_negatives[users]] for split, users in self._users.items()}

    @property
    def num_without_negatives(self) -> int:
        """Users that training asks about no list of candidates and no single item, because they had every item."""
        return len(self._users["train"]) - len(self._users_with_negatives["train"])

    @cached_property
    def _reviews(self) -> dict[SampledSplit, list[Review]]:
        """Reviews with an explanation that can fill at least one of the templates."""
        templates = self._templates("explanation")
        splits: tuple[SampledSplit, ...] = ("train", "val")
        return {
            split: [
                review
                for review in self.dataset.reviews
                if review.split == split and review.explanation and any(map(review.can_fill, templates))
            ]
            for split in splits
        }


def _last_codes(dataset: Dataset, tokenizer: TextTokenizer, prompts: Prompts) -> LastCodes | None:
    if prompts.last_codes == "given":
        return None
    if dataset.codebook is None:
        raise TrainingError(
            f'{dataset.provenance.name} has no codebook, so last_codes = "drawn" has none to draw; index it with vip5 '
            'data index --method residual, or set prompts.last_codes = "given"'
        )
    return LastCodes.of(dataset.codebook, tuple(dataset.catalog.indices), tokenizer)


def rating_around(star: float, random: np.random.Generator) -> float:
    """A rating with one decimal near a star rating, drawn as VIP5 draws its targets."""
    low, high = max(star - 0.5, 1.0), min(star + 0.4, 5.0)
    return float(np.clip(round(random.normal((low + high) / 2, (high - low) / 4), 1), 1.0, 5.0))


def all_kinds(samplers: Sequence[DomainSampler], split: SampledSplit) -> list[Kind]:
    """Kinds of all domains. Raises TrainingError if there are none."""
    kinds = [kind for domain, sampler in enumerate(samplers) for kind in sampler.kinds(domain, split)]
    if not kinds:
        names = ", ".join(sampler.dataset.provenance.name for sampler in samplers)
        raise TrainingError(
            f"{names}: no user with enough interactions and no review with an explanation fits prompts.tasks and "
            f"prompts.templates in the split {split}; choose other templates or another dataset"
        )
    return kinds


def _given(star: float | None) -> float:
    assert star is not None, "a rated template was filled from a review without a rating"
    return star

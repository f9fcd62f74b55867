"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import InputError
from model.network.config import TASKS, Task
from model.prompts.templates import TEMPLATES

HeldOutSplit = Literal["val", "test"]
HELD_OUT_SPLITS: tuple[HeldOutSplit, ...] = ("val", "test")

BASELINES = ("random", "popularity", "co-occurrence", "sasrec")
NUM_ANSWERED = 10
"""Items that each question asks for; a target beyond them counts as not found."""

DEFAULT_TEMPLATES: dict[Task, tuple[str, ...]] = {
    "sequential": ("A-3", "A-9"),
    "direct": ("B-5", "B-8", "B-1"),
    "explanation": ("C-3", "C-8", "C-12"),
}
"""The templates that VIP5's authors report, and one for each other kind of answer."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Raises InputError, naming the option and the rule.

    `tasks` defaults to all tasks that the dataset has questions for, `templates` to the default templates of the tasks.
    `num_users` samples the users of each task; `num_exact` of them are also ranked exactly. `exclude_history` is False
    because VIP5's evaluation excludes nothing. With `with_images` False, all image embeddings are missing, as when the
    feature store is down. `device` is only recorded.
    """

    split: HeldOutSplit = "test"
    tasks: tuple[Task, ...] | None = None
    templates: tuple[str, ...] | None = None
    num_users: int | None = None
    seed: int = 0
    num_beams: int = 20
    exclude_history: bool = False
    num_negatives: int = 99
    num_exact: int = 0
    with_images: bool = True
    baselines: tuple[str, ...] = ()
    max_new_tokens: int = 64
    batch_tokens: int = 16_384
    device: str = "cpu"

    def __post_init__(self) -> None:
        _check_among("split", (self.split,), HELD_OUT_SPLITS)
        _check_among("task", self.tasks, TASKS)
        _check_among("template", self.templates, tuple(TEMPLATES))
        _check_among("baseline", self.baselines, BASELINES)
        least = {
            "num_users": (self.num_users, 1),
            "seed": (self.seed, 0),
            "num_beams": (self.num_beams, NUM_ANSWERED),
            "num_negatives": (self.num_negatives, 1),
            "num_exact": (self.num_exact, 0),
            "max_new_tokens": (self.max_new_tokens, 1),
            "batch_tokens": (self.batch_tokens, 1),
        }
        for name, (value, lowest) in least.items():
            if value is not None and value < lowest:
                raise InputError(f"{name} is {value}; it must be at least {lowest}", field=name)
        for template in self.templates or ():
            if self.tasks is not None and TEMPLATES[template].task not in self.tasks:
                raise InputError(
                    f"template {template} is of the task {TEMPLATES[template].task}, but the tasks to evaluate are "
                    f"{', '.join(self.tasks)}; remove the template or add its task",
                    field="templates",
                )

    @property
    def asked_tasks(self) -> tuple[Task, ...]:
        """Tasks that were selected by name, or by one of their templates."""
        if self.templates is not None:
            return tuple(task for task in TASKS if any(TEMPLATES[name].task == task for name in self.templates))
        return self.tasks or ()

    def templates_of(self, task: Task) -> tuple[str, ...]:
        """The selected templates of a task, in the given order."""
        if self.templates is not None:
            return tuple(dict.fromkeys(name for name in self.templates if TEMPLATES[name].task == task))
        return DEFAULT_TEMPLATES[task] if self.tasks is None or task in self.tasks else ()


def _check_among(what: str, values: tuple[str, ...] | None, known: tuple[str, ...]) -> None:
    for value in values or ():
        if value not in known:
            raise InputError(f"{value!r} is not a {what}; choose from {', '.join(known)}", field=what)

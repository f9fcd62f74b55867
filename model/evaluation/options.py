"""Options of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from model.errors import InputError
from model.network.config import TASKS, Task
from model.prompts.templates import TEMPLATES, Template, is_vip5_name, templates_of

HeldOutSplit = Literal["val", "test"]
HELD_OUT_SPLITS: tuple[HeldOutSplit, ...] = ("val", "test")

BASELINES = ("random", "popularity", "co-occurrence", "decayed-co-occurrence", "sasrec")
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

    `tasks` defaults to all tasks that the dataset has questions for, `templates` to the default templates of the tasks,
    or to those that come with the domain; whether it has one of a name that is not VIP5's is checked when it is asked.
    `num_users` samples the users of each task; `num_exact` of them are also ranked exactly. `exclude_history` is False
    because VIP5's evaluation excludes nothing; `both_histories` asks next items once more with it excluded. With
    `with_images` False, all image embeddings are missing, as when the feature store is down. `device` is only recorded.
    """

    split: HeldOutSplit = "test"
    tasks: tuple[Task, ...] | None = None
    templates: tuple[str, ...] | None = None
    num_users: int | None = None
    seed: int = 0
    num_beams: int = 20
    exclude_history: bool = False
    both_histories: bool = False
    num_negatives: int = 99
    num_exact: int = 0
    with_images: bool = True
    baselines: tuple[str, ...] = ()
    groups: str | None = None
    """A column of the items, or of `groups_table`, by whose values all metrics are given as well."""
    groups_table: str | None = None
    """A file of JSON lines or Parquet about users, with `user_id` and the column."""
    max_new_tokens: int = 64
    batch_tokens: int = 16_384
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, names in (("tasks", self.tasks), ("templates", self.templates), ("baselines", self.baselines)):
            if isinstance(names, str):  # it would be read as its letters
                raise InputError(f"{name} is the text {names!r}; give a tuple of names, ({names!r},)", field=name)
        _check_among("split", (self.split,), HELD_OUT_SPLITS)
        _check_among("task", self.tasks, TASKS)
        of_vip5 = tuple(name for name in self.templates or () if is_vip5_name(name))
        _check_among("template", of_vip5, tuple(TEMPLATES))
        _check_among("baseline", self.baselines, BASELINES)
        if self.exclude_history and self.both_histories:
            raise InputError(
                "exclude_history and both_histories are set, and the first would make both rankings the same; set one",
                field="exclude_history",
            )
        if self.groups_table is not None and self.groups is None:
            raise InputError(
                f"groups_table is {self.groups_table!r}, but no column of it is named; set groups", field="groups"
            )
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
        for template in of_vip5:
            if self.tasks is not None and TEMPLATES[template].task not in self.tasks:
                raise InputError(
                    f"template {template} is of the task {TEMPLATES[template].task}, but the tasks to evaluate are "
                    f"{', '.join(self.tasks)}; remove the template or add its task",
                    field="templates",
                )

    def templates_of(self, task: Task, known: Mapping[str, Template] = TEMPLATES) -> tuple[Template, ...]:
        """The selected templates of a task, in the given order; `known` are those of the domain, by name."""
        if self.templates is not None:
            _check_among("template", self.templates, tuple(known))
            chosen = (known[name] for name in dict.fromkeys(self.templates))
            return tuple(template for template in chosen if template.task == task)
        if self.tasks is not None and task not in self.tasks:
            return ()
        own = tuple(template for template in templates_of(task, known) if template.template_id not in TEMPLATES)
        return own or tuple(known[name] for name in DEFAULT_TEMPLATES[task])


def _check_among(what: str, values: tuple[str, ...] | None, known: tuple[str, ...]) -> None:
    for value in values or ():
        if value not in known:
            raise InputError(f"{value!r} is not a {what}; choose from {', '.join(known)}", field=what)

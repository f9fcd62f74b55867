"""Plans over prompts that tests make themselves."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.engine.plans import Plan
from model.network.config import Task
from model.prompts.prompt import Prompt

P = TypeVar("P", bound=Plan)


def plan_of(prompt: Prompt, features: NDArray[np.float32] | None = None, task: Task = "sequential") -> Plan:
    """A prompt of the first domain, without a task's options."""
    given = () if features is None else (features,)
    return Plan(slot=0, task=task, template="test", prompts=(prompt,), features=given)


def plan_to(kind: type[P], plan: Plan, **options: Any) -> P:  # noqa: ANN401  # whatever the kind takes
    """The same prompts in a plan of this kind."""
    return kind(**vars(plan), **options)

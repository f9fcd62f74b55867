"""How long a run trains: steps, epochs or seconds, and a Trainer whose schedule follows whichever ends first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from model.training.config import Optimiser
from model.training.measures import StepClock
from model.training.tuned_model import TunedModel
from model.training.validation import EngineValidation

_MOST_STEPS = 10**8
"""Of a run that only a time ends."""
_LEAST_FACTOR = 0.01
"""Of the learning rate at the end of a budget of time; the last step may come late."""


@dataclass(frozen=True)
class Budget:
    """`steps` and `seconds` of training; at least one is given."""

    steps: int | None
    seconds: float | None
    schedule: str
    warmup_share: float
    schedule_steps: int | None = None
    """Of a schedule that is longer than the run."""

    @classmethod
    def of(cls, optimiser: Optimiser, batches_per_epoch: int | None) -> Budget:
        """`batches_per_epoch` is given for runs that have epochs."""
        steps = optimiser.steps
        if optimiser.epochs is not None and batches_per_epoch is not None:
            of_epochs = math.ceil(optimiser.epochs * batches_per_epoch / optimiser.gradient_accumulation)
            steps = of_epochs if steps is None else min(steps, of_epochs)
        return cls(steps, optimiser.time_budget_s, optimiser.schedule, optimiser.warmup_share, optimiser.schedule_steps)

    @property
    def max_steps(self) -> int:
        return _MOST_STEPS if self.steps is None else self.steps

    @property
    def length_of_schedule(self) -> int:
        """In steps."""
        return self.schedule_steps or self.max_steps

    def share(self, step: int, trained_s: float) -> float:
        """How much of the run is done, 0 to 1."""
        of_steps = 0.0 if self.steps is None else step / self.steps
        of_time = 0.0 if self.seconds is None else trained_s / self.seconds
        return min(1.0, max(of_steps, of_time))

    def learning_rate_factor(self, share: float) -> float:
        """The learning rate when so much of the run is done, relative to the largest."""
        if share < self.warmup_share:
            return max(share / self.warmup_share, _LEAST_FACTOR)
        left = (1 - share) / max(1 - self.warmup_share, 1e-9)
        if self.schedule == "constant_with_warmup":
            return 1.0
        factor = left if self.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
        return max(factor, _LEAST_FACTOR)


class EndOfBudget(TrainerCallback):
    """Ends a run when its time is over; with `validates`, after a last validation."""

    def __init__(self, budget: Budget, clock: StepClock, *, validates: bool) -> None:
        self._budget, self._clock, self._validates = budget, clock, validates

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._budget.share(state.global_step, self._clock.trained_s) >= 1:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = control.should_evaluate or self._validates


class ServingTrainer(Trainer):
    """A Trainer that may have a budget of time and may validate through the engine that serves."""

    budget: Budget
    clock: StepClock
    validation: EngineValidation | None = None

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """With a budget of time, a learning rate by the share of the budget that is used."""
        budget, clock = self.budget, self.clock
        chosen = optimizer or self.optimizer
        if self.lr_scheduler is None and budget.seconds is not None:
            assert chosen is not None
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                chosen,
                lambda step: budget.learning_rate_factor(budget.share(step, clock.trained_s)),
            )
        num_steps = max(num_training_steps, budget.schedule_steps or 0)
        scheduler: torch.optim.lr_scheduler.LRScheduler = super().create_scheduler(num_steps, optimizer)
        return scheduler

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Not the biases of positions either: decay would let a causal encoder see the future."""
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith("positions.table")]

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:  # the Trainer's own signature
        """The validation loss and, from the engine's answers, hits and gains."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.validation is not None:
            assert isinstance(self.model, TunedModel)
            assert output.metrics is not None
            found = self.validation.metrics(self.model.network)
            output.metrics.update({f"eval_{name}": value for name, value in found.items()})
        return output

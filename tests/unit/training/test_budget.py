"""How long a run trains, and its learning rate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from model.errors import TrainingError
from model.training.budget import Budget, EndOfBudget
from model.training.config import Optimiser, read_run
from model.training.measures import StepClock, trained_s_of
from model.training.tuning import tune
from tests.unit.training.test_one_pass import ONE_PASS
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run


def test_a_run_ends_with_the_first_of_steps_epochs_and_seconds() -> None:
    assert Budget.of(Optimiser(steps=10, epochs=3), 7).max_steps == 10
    assert Budget.of(Optimiser(steps=100, epochs=3, gradient_accumulation=2), 7).max_steps == 11
    budget = Budget.of(Optimiser(steps=100, time_budget_s=50.0), None)
    assert budget.share(step=10, trained_s=5.0) == 0.1
    assert budget.share(step=10, trained_s=20.0) == 0.4
    assert Budget.of(Optimiser(time_budget_s=50.0), None).share(10**6, 25.0) == 0.5


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_the_learning_rate_rises_falls_and_never_ends(schedule: str) -> None:
    budget = Budget(None, 100.0, schedule, warmup_share=0.1)
    factors = [budget.learning_rate_factor(share / 100) for share in range(101)]
    assert factors[0] > 0
    assert max(factors) == factors[10] == 1.0
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == (1.0 if schedule == "constant_with_warmup" else 0.01)


def test_the_run_ends_with_its_time_after_a_last_validation() -> None:
    clock = StepClock(earlier_s=9.0)
    end = EndOfBudget(Budget(None, 10.0, "linear", 0.1), clock, validates=True)
    control = SimpleNamespace(should_training_stop=False, should_save=False, should_evaluate=False)
    end.on_step_end(None, SimpleNamespace(global_step=5), control)
    assert not control.should_training_stop
    clock.trained_s = 10.0
    end.on_step_end(None, SimpleNamespace(global_step=6), control)
    assert (control.should_training_stop, control.should_save, control.should_evaluate) == (True, True, True)


def test_a_run_resumes_with_the_time_that_it_has_used(tmp_path: Path) -> None:
    text = ONE_PASS.replace("epochs = 1", "steps = 6\ntime_budget_s = 100000")
    run = read_run(write_run(tmp_path, text))

    def kill(what: str, done: int, total: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(run, progress=kill)
    assert trained_s_of(str(tmp_path / "work/run/checkpoint-4")) > 0
    steps: list[int] = []
    tune(run, progress=lambda what, done, total: steps.append(done))
    assert min(steps[1:]) == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 6", "", r"lacks the key `steps`; set it, epochs or time_budget_s"),
        ("steps = 6", "epochs = 6", r"run\.toml:\d+: optimiser\.epochs is for prompts\.targets = \"in_one_pass\""),
        ("steps = 6", "steps = 6\nbatch_tokens = 9", r"optimiser\.batch_tokens is for prompts\.targets"),
        ("validation_batches = 2", "patience = 2", r"record\.patience is 2, but without record\.validation_users"),
        ("max_tokens = 128", 'max_tokens = 128\ntargets = "in_one_pass"', r"trains one template of \[\[templates\]\]"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FROM_SCRATCH
    with pytest.raises(TrainingError, match=message):
        read_run(write_run(tmp_path, FROM_SCRATCH.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('text = "{history}"', 'text = "next ? {history}"', r"needs a template of nothing but the history"),
        ("most_items = 4", "", r"needs a template of nothing but the history, with a separator and most_items"),
        ('name = "items"', 'name = "A-1"', r"run\.toml:\d+: templates\[0\]: A-1 is a name as VIP5's templates have"),
        ("{history}", "{past}", r"templates\[0\]: items: \{past\} is no argument; choose from user_index"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_run(write_run(tmp_path, ONE_PASS.replace(old, new, 1)))

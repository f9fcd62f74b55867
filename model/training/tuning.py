"""Training a run with Hugging Face's Trainer, for `vip5 train`."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from model.bundle.joins import Notice, no_notice
from model.devices import require_device
from model.progress import Progress, no_progress
from model.training.budget import Budget, EndOfBudget, ServingTrainer
from model.training.config import Run
from model.training.curves import Curves
from model.training.material import Material, material_of
from model.training.measures import Measures, StepClock, trained_s_of
from model.training.memory import keep_freed_memory
from model.training.preparation import Preparation, prepare
from model.training.result import write_result
from model.training.tuned_model import ParameterCounts
from model.training.validation import BEST, EngineValidation
from model.training.work_folder import close_work_folder, open_work_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TunedBundle:
    """The result of a run. In a distributed run, `bundle_hash` is None in all processes but the first.

    `notices` are lines about data that was not used.
    """

    bundle_hash: str | None
    counts: ParameterCounts
    measures: Measures
    notices: tuple[str, ...]


def tune(
    run: Run,
    *,
    device: str = "cpu",
    restart: bool = False,
    replace: bool = False,
    progress: Progress = no_progress,
    notice: Notice = no_notice,
) -> TunedBundle:
    """Train and write the result. An interrupted run resumes from its last checkpoint, unless `restart`.

    `notice` is told before the training which data is not used, and what the model had better not learn.

    `device` is cpu or cuda, as `training_device` gives it. What `run.out` has is kept until the new result is complete,
    and replaced only if `replace` is set. Raises ExistsError otherwise, and TrainingError, DatasetError, BundleError or
    EngineError if the run cannot start.
    """
    require_device(device)
    if device == "cpu":
        keep_freed_memory()
    set_seed(run.file.seed)
    preparation = prepare(run, replace=replace)
    notices = tuple(line for domain in preparation.domains for line in domain.notices)
    for line in notices:
        notice(line)
    material = material_of(preparation)
    budget = Budget.of(run.file.optimiser, material.batches_per_epoch)
    checkpoint = open_work_folder(run, restart=restart)
    counts = material.model.counts()
    progress(_headline(counts), 0, budget.steps)
    clock = StepClock(trained_s_of(checkpoint))
    trainer = _trainer(preparation, material, budget, clock, device)
    trainer.add_callback(_Reporter(progress, budget, clock))
    trainer.train(resume_from_checkpoint=checkpoint)
    measures = clock.measures(trainer.state.log_history, trainer.state.best_global_step)
    digest = None
    if trainer.is_world_process_zero():
        digest = write_result(preparation, material.model.network.cpu(), counts, measures, replace=replace)
        close_work_folder(run)
    return TunedBundle(digest, counts, measures, notices)


def _trainer(
    preparation: Preparation, material: Material, budget: Budget, clock: StepClock, device: str
) -> ServingTrainer:
    run = preparation.run
    record, validates = run.file.record, run.file.record.validation_batches or run.file.record.validation_users
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    num_batches = budget.max_steps * run.file.optimiser.gradient_accumulation * num_processes
    trainer = ServingTrainer(
        model=material.model,
        args=_arguments(preparation, material, budget, device),
        data_collator=material.collator,
        train_dataset=material.batches("train", num_batches),
        eval_dataset=material.batches("val", max(1, record.validation_batches)) if validates else None,
        callbacks=[clock, EndOfBudget(budget, clock, validates=bool(record.validation_users)), Curves(run.work)],
    )
    trainer.budget, trainer.clock = budget, clock
    if record.validation_users:
        trainer.validation = EngineValidation.of(preparation, device)
    if record.patience:
        trainer.add_callback(EarlyStoppingCallback(record.patience))
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _arguments(preparation: Preparation, material: Material, budget: Budget, device: str) -> TrainingArguments:
    run = preparation.run
    optimiser, record = run.file.optimiser, run.file.record
    validate_every = min(record.validate_every, budget.max_steps)
    return TrainingArguments(
        output_dir=str(run.work),
        max_steps=budget.max_steps,
        per_device_train_batch_size=material.batch_size,
        per_device_eval_batch_size=material.batch_size,
        gradient_accumulation_steps=optimiser.gradient_accumulation,
        learning_rate=optimiser.learning_rate,
        lr_scheduler_type=optimiser.schedule,
        warmup_steps=round(optimiser.warmup_share * budget.length_of_schedule),
        weight_decay=optimiser.weight_decay,
        adam_beta2=optimiser.beta2,
        max_grad_norm=optimiser.max_gradient_norm,
        bf16=optimiser.precision == "bfloat16",
        seed=run.file.seed,
        use_cpu=device == "cpu",
        label_names=["targets"],
        prediction_loss_only=True,
        remove_unused_columns=False,
        dataloader_num_workers=optimiser.drawing_processes,
        dataloader_persistent_workers=optimiser.drawing_processes > 0,
        train_sampling_strategy="sequential",  # an example is drawn from its number
        ddp_find_unused_parameters=True,  # a batch without images does not use the visual mapper
        eval_strategy="steps" if record.validation_batches or record.validation_users else "no",
        eval_steps=validate_every,
        save_steps=validate_every if record.validation_users else record.checkpoint_every,
        save_total_limit=2,
        load_best_model_at_end=bool(record.validation_users),
        metric_for_best_model=BEST if record.validation_users else None,
        greater_is_better=True if record.validation_users else None,
        restore_callback_states_from_checkpoint=bool(record.patience),
        logging_steps=min(record.log_every, budget.max_steps),
        report_to=["tensorboard"],
        disable_tqdm=True,
    )


class _Reporter(TrainerCallback):
    """Reports each step, or second of a budget of time, and the latest loss and metrics."""

    def __init__(self, progress: Progress, budget: Budget, clock: StepClock) -> None:
        self._progress, self._budget, self._clock = progress, budget, clock
        self._loss = self._found = ""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._loss = f", loss {logs['loss']:.3f}"
        if logs and "eval_hr@10" in logs:
            self._found = f", HR@10 {logs['eval_hr@10']:.4f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        text, seconds = f"training{self._loss}{self._found}", self._budget.seconds
        if self._budget.steps is None and seconds is not None:
            self._progress(text, min(round(self._clock.trained_s), round(seconds)), round(seconds))
        else:
            self._progress(text, state.global_step, state.max_steps)


def _headline(counts: ParameterCounts) -> str:
    return f"{counts.trainable:,} of {counts.total:,} parameters are trainable ({counts.share:.2%})"

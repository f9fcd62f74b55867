"""Training a run with Hugging Face's Trainer, for `vip5 train`."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from model.bundle.joins import Notice, no_notice
from model.devices import require_device
from model.progress import Progress, no_progress
from model.training.batches import Collator, Examples
from model.training.config import Run
from model.training.measures import Measures, StepClock
from model.training.preparation import Preparation, prepare
from model.training.result import write_result
from model.training.sampling import SampledSplit
from model.training.tuned_model import ParameterCounts, TunedModel
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
    set_seed(run.file.seed)
    preparation = prepare(run, replace=replace)
    notices = tuple(line for domain in preparation.domains for line in domain.notices)
    for line in notices:
        notice(line)
    checkpoint = open_work_folder(run, restart=restart)
    model = TunedModel(preparation.network, run.file)
    counts = model.counts()
    progress(_headline(counts), 0, run.file.optimiser.steps)
    clock = StepClock()
    trainer = _trainer(preparation, model, device, [clock, _Reporter(progress)])
    trainer.train(resume_from_checkpoint=checkpoint)
    measures = clock.measures(trainer.state.log_history)
    digest = None
    if trainer.is_world_process_zero():
        digest = write_result(preparation, model.network.cpu(), counts, measures, replace=replace)
        close_work_folder(run)
    return TunedBundle(digest, counts, measures, notices)


def _trainer(preparation: Preparation, model: TunedModel, device: str, callbacks: list[TrainerCallback]) -> Trainer:
    file = preparation.run.file
    trainer = Trainer(
        model=model,
        args=_arguments(preparation.run, device),
        data_collator=Collator.of(preparation.network),
        train_dataset=_examples(preparation, "train", file.optimiser.steps * file.optimiser.gradient_accumulation),
        eval_dataset=_examples(preparation, "val", file.record.validation_batches)
        if file.record.validation_batches
        else None,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _examples(preparation: Preparation, split: SampledSplit, num_batches: int) -> Examples:
    file = preparation.run.file
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return Examples(
        [domain.sampler for domain in preparation.domains],
        [domain.images for domain in preparation.domains],
        split=split,
        seed=file.seed,
        batch_size=file.optimiser.batch_size,
        num_batches=num_batches * (processes if split == "train" else 1),
    )


def _arguments(run: Run, device: str) -> TrainingArguments:
    optimiser, record = run.file.optimiser, run.file.record
    return TrainingArguments(
        output_dir=str(run.work),
        max_steps=optimiser.steps,
        per_device_train_batch_size=optimiser.batch_size,
        per_device_eval_batch_size=optimiser.batch_size,
        gradient_accumulation_steps=optimiser.gradient_accumulation,
        learning_rate=optimiser.learning_rate,
        lr_scheduler_type=optimiser.schedule,
        warmup_steps=round(optimiser.warmup_share * optimiser.steps),
        weight_decay=optimiser.weight_decay,
        max_grad_norm=optimiser.max_gradient_norm,
        bf16=optimiser.precision == "bfloat16",
        seed=run.file.seed,
        use_cpu=device == "cpu",
        label_names=["targets"],
        prediction_loss_only=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",  # an example is drawn from its number
        ddp_find_unused_parameters=True,  # a batch without images does not use the visual mapper
        eval_strategy="steps" if record.validation_batches else "no",
        eval_steps=min(record.validate_every, optimiser.steps),
        save_steps=record.checkpoint_every,
        save_total_limit=2,
        logging_steps=min(record.log_every, optimiser.steps),
        report_to=["tensorboard"],
        disable_tqdm=True,
    )


class _Reporter(TrainerCallback):
    """Reports each step and the latest loss."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loss = ""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._loss = f", loss {logs['loss']:.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress(f"training{self._loss}", state.global_step, state.max_steps)


def _headline(counts: ParameterCounts) -> str:
    return f"{counts.trainable:,} of {counts.total:,} parameters are trainable ({counts.share:.2%})"

"""Whether the parts of a run file agree with each other; errors name the file, the line and the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from model.bundle.manifest import check_domain_name
from model.errors import BundleError, TrainingError
from model.prompts.templates import TEMPLATES, Template, with_own
from model.training.run_documents import Places

if TYPE_CHECKING:
    from model.training.config import Optimiser, RunFile


def check_run(file: RunFile, places: Places) -> None:
    """Raise TrainingError if the parts of a run file contradict each other."""
    _check_domains(file, places)
    _check_tune(file, places)
    _check_prompts(file, places)
    _check_one_pass(file, places)
    _check_length(file, places)


def _check_domains(file: RunFile, places: Places) -> None:
    names = [domain.name for domain in file.domains]
    if not names:
        raise TrainingError(f"{places.of('domains')}: domains is empty; name at least one")
    for place, name in enumerate(names):
        try:
            check_domain_name(name)
        except BundleError as error:
            raise TrainingError(f"{places.of('domains', place, 'name')}: domains[{place}].name: {error}") from error
        if name in names[:place]:
            raise TrainingError(
                f"{places.of('domains', place, 'name')}: [[domains]] are {names}; name at least one, each once"
            )


def _check_tune(file: RunFile, places: Places) -> None:
    if (file.tune == "from_scratch") != (file.backbone is not None):
        raise TrainingError(
            f"{places.of('tune' if file.backbone is None else 'backbone')}: tune is {file.tune!r}; only 'from_scratch' "
            "has a [backbone], and it must: add or remove it"
        )
    if file.backbone is not None and file.backbone.item_embeddings is not None and len(file.domains) > 1:
        raise TrainingError(
            f"{places.of('backbone', 'item_embeddings')}: backbone.item_embeddings are vectors of one domain's items, "
            f"and there are {len(file.domains)} [[domains]]; name one, or remove it"
        )
    if file.tune == "from_scratch" and file.start is not None:
        raise TrainingError(f"{places.of('start')}: tune is 'from_scratch', which starts from no bundle; remove start")
    if file.tune == "everything" and (file.start is None or file.start == file.out):
        raise TrainingError(
            f"{places.of('start' if file.start else 'tune')}: tune is 'everything', which changes the backbone that "
            "the domains of a bundle share; set start to the bundle to start from, and another bundle as out"
        )
    if file.tune == "adapters" and not file.adapters.reduction_factor:
        raise TrainingError(
            f"{places.of('adapters', 'reduction_factor')}: adapters.reduction_factor is 0, so there are no adapters to "
            "tune; set 1 or more"
        )


def _check_prompts(file: RunFile, places: Places) -> None:
    prompts, known = file.prompts, _known_templates(file, places)
    for place, name in enumerate(prompts.templates):
        _check_template(f"prompts.templates[{place}]", name, list(known), places.of("prompts", "templates", place))
    generating = [name for name, each in known.items() if each.task == "sequential" and each.target == "item"]
    direct = [name for name, each in known.items() if each.task == "direct"]
    for key, name, allowed in (
        ("default_sequential", prompts.default_sequential, generating),
        ("default_direct", prompts.default_direct, direct),
    ):
        _check_template(f"prompts.{key}", name, allowed, places.of("prompts", key))
    if not any(prompts.tasks.values()):
        raise TrainingError(
            f"{places.of('prompts', 'tasks')}: all shares in prompts.tasks are 0; give one a share above 0"
        )


def _known_templates(file: RunFile, places: Places) -> dict[str, Template]:
    """VIP5's templates and those of the file, by name."""
    for place in range(len(file.templates)):
        try:
            with_own(file.own_templates[: place + 1])
        except ValueError as error:
            raise TrainingError(f"{places.of('templates', place)}: templates[{place}]: {error}") from error
    return with_own(file.own_templates)


def _check_one_pass(file: RunFile, places: Places) -> None:
    """Positions share a pass only if their prompts share all tokens but the end."""
    prompts, where = file.prompts, places.of("prompts", "targets")
    if prompts.targets != "in_one_pass":
        given = [key for key in ("epochs", "batch_tokens", "compile") if getattr(file.optimiser, key)]
        for key in given:
            raise TrainingError(
                f'{places.of("optimiser", key)}: optimiser.{key} is for prompts.targets = "in_one_pass", and targets '
                f"is {prompts.targets!r}; remove it, or change targets"
            )
        return
    asked = [task for task, share in prompts.tasks.items() if share]
    chosen = {each.name: each for each in file.templates}.get(prompts.default_sequential)
    if asked != ["sequential"] or prompts.templates != (prompts.default_sequential,) or chosen is None:
        raise TrainingError(
            f'{where}: targets = "in_one_pass" trains one template of [[templates]] and one task; set tasks to '
            "{ sequential = 1 }, and templates and default_sequential to its name"
        )
    if chosen.text.strip() != "{history}" or chosen.separator is None or chosen.most_items is None:
        raise TrainingError(
            f'{where}: targets = "in_one_pass" needs a template of nothing but the history, with a separator and '
            f'most_items, and {chosen.name} is another; set its text to "{{history}}", its separator, such as "", and '
            "most_items"
        )


def _check_length(file: RunFile, places: Places) -> None:
    optimiser = file.optimiser
    if optimiser.steps is None and optimiser.epochs is None and optimiser.time_budget_s is None:
        raise TrainingError(
            f"{places.of('optimiser')}: optimiser lacks the key `steps`; set it, epochs or time_budget_s"
        )
    if optimiser.schedule_steps is not None:
        _check_schedule(optimiser, places.of("optimiser", "schedule_steps"))
    if file.record.patience and not file.record.validation_users:
        raise TrainingError(
            f"{places.of('record', 'patience')}: record.patience is {file.record.patience}, but without "
            "record.validation_users nothing is compared; set both or neither"
        )


def _check_schedule(optimiser: Optimiser, place: str) -> None:
    length = optimiser.schedule_steps
    if optimiser.steps is None or optimiser.epochs is not None or optimiser.time_budget_s is not None:
        raise TrainingError(
            f"{place}: optimiser.schedule_steps is {length}, which needs steps and neither epochs nor time_budget_s; "
            "give the length of the run in steps, or remove schedule_steps"
        )
    if length is not None and length < optimiser.steps:
        raise TrainingError(
            f"{place}: optimiser.schedule_steps is {length}, fewer than the {optimiser.steps} steps of the run; set as "
            "many or more, or remove it"
        )


def _check_template(key: str, name: str, allowed: Sequence[str], place: str) -> None:
    if name not in allowed:
        known = (
            f"the template {name!r}"
            if name not in TEMPLATES and name not in allowed
            else f"{name!r}, a template of another kind"
        )
        raise TrainingError(f"{place}: {key} names {known}; choose from {', '.join(allowed)}")

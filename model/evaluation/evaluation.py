"""Evaluation of a domain through the engine that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from model.datasets.dataset import Dataset
from model.errors import UnknownDomainError
from model.evaluation.answering import Respondent
from model.evaluation.answers import ExactAnswer, Header, Journal, RankedAnswer, TextAnswer
from model.evaluation.beyond_accuracy import BeyondAccuracy
from model.evaluation.held_out import HeldOut, fingerprint
from model.evaluation.options import EvaluationOptions
from model.evaluation.questions import Question, Questionnaire
from model.evaluation.report import ExactComparison, Report, Result, hardware
from model.evaluation.summary import baseline_results, exact_comparison, ranked_result, text_result
from model.planning.domain import ServedDomain
from model.planning.runtime import Runtime
from model.progress import Progress, no_progress
from model.prompts.templates import Template


def evaluate(
    runtime: Runtime,
    domain: str,
    dataset: Dataset,
    options: EvaluationOptions | None = None,
    *,
    journal: Path | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Ask all questions that the options select, and measure the answers.

    Answers are appended to `journal`; an evaluation that finds its own answers there resumes after them, with the same
    result. Raises UnknownDomainError, DatasetError for data that does not fit the domain or the options, and
    TrainingError for a baseline whose library is not installed.
    """
    options = options or EvaluationOptions()
    if domain not in runtime.domains:
        known = ", ".join(sorted(runtime.domains)) or "none"
        raise UnknownDomainError(f"the bundle has no domain {domain!r}; it has {known}", field="domain")
    served = runtime.domains[domain]
    if options.both_histories:
        return _evaluate_both(runtime, served, dataset, options, journal, progress)
    held_out = HeldOut.of(dataset, served, options)
    beyond = BeyondAccuracy.of(held_out, served, runtime.files[domain].features)
    questionnaire = Questionnaire(held_out, served)
    data = fingerprint(dataset)
    asked = asdict(options)
    for name in ("baselines", "both_histories", "groups", "groups_table"):
        del asked[name]  # they do not change the engine's answers
    header = Header(runtime.bundle_hash, domain, dataset.provenance.name, data, asked)
    templates = questionnaire.templates
    answers = Journal(journal, header)
    baselines = _baselines(held_out, beyond, templates, progress)
    respondent = Respondent.of(runtime, served, with_images=options.with_images)
    _answer_all(questionnaire, respondent, answers, progress)
    results = [_result(held_out, beyond, template, answers) for template in templates] + baselines
    exact = [_exact(held_out, template, answers) for template in templates if questionnaire.exact_questions(template)]
    return Report(
        bundle=runtime.bundle_hash,
        domain=domain,
        dataset=dataset.provenance.name,
        dataset_fingerprint=data,
        indexing=dataset.provenance.indexing,
        hardware=hardware(options.device),
        options=options,
        seconds=sum(each.seconds for each in results) + sum(each.seconds for each in exact),
        results=tuple(results),
        exact=tuple(exact),
    )


def _evaluate_both(
    runtime: Runtime,
    domain: ServedDomain,
    dataset: Dataset,
    options: EvaluationOptions,
    journal: Path | None,
    progress: Progress,
) -> Report:
    """Everything with histories kept, and next items once more with them excluded."""
    once = replace(options, both_histories=False)
    report = evaluate(runtime, domain.name, dataset, once, journal=journal, progress=progress)
    asked = [each for each in options.templates_of("sequential", domain.templates) if each.target == "item"]
    if not asked:
        return replace(report, options=options)
    names = tuple(template.template_id for template in asked)
    again = replace(once, exclude_history=True, tasks=("sequential",), templates=names, num_exact=0)
    beside = None if journal is None else journal.with_name(f"history-excluded.{journal.name}")
    excluded = evaluate(runtime, domain.name, dataset, again, journal=beside, progress=progress)
    return replace(
        report,
        options=options,
        seconds=report.seconds + excluded.seconds,
        history_excluded=excluded.results,
    )


def _answer_all(questionnaire: Questionnaire, respondent: Respondent, journal: Journal, progress: Progress) -> None:
    """Answer the questions that are not in the journal yet; their order is always the same."""
    steps = list(_steps(questionnaire))
    total = sum(len(questions) for _, questions, _ in steps)
    num_answered = len(journal.answers)
    for what, questions, is_exact in steps:
        unanswered = questions[min(num_answered, len(questions)) :]
        num_answered -= len(questions) - len(unanswered)
        answer = respondent.answer_exactly if is_exact else respondent.answer
        for batch in questionnaire.batches(unanswered):
            journal.append(answer(batch))
            progress(what, len(journal.answers), total)


def _steps(questionnaire: Questionnaire) -> Iterator[tuple[str, list[Question], bool]]:
    """A description, the questions, and whether to answer them exactly."""
    for template in questionnaire.templates:
        yield f"asking by {template.template_id}", questionnaire.questions(template), False
    for template in questionnaire.templates:
        yield f"ranking exactly by {template.template_id}", questionnaire.exact_questions(template), True


def _result(held_out: HeldOut, beyond: BeyondAccuracy, template: Template, journal: Journal) -> Result:
    if template.task == "explanation":
        texts = [answer for answer in journal.answers if isinstance(answer, TextAnswer)]
        return text_result(
            held_out, beyond, template, [each for each in texts if each.template == template.template_id]
        )
    ranked = [answer for answer in journal.answers if isinstance(answer, RankedAnswer)]
    return ranked_result(held_out, beyond, template, [each for each in ranked if each.template == template.template_id])


def _exact(held_out: HeldOut, template: Template, journal: Journal) -> ExactComparison:
    own = [answer for answer in journal.answers if answer.template == template.template_id]
    ranked = [answer for answer in own if isinstance(answer, RankedAnswer)]
    return exact_comparison(held_out, template, ranked, [each for each in own if isinstance(each, ExactAnswer)])


def _baselines(
    held_out: HeldOut, beyond: BeyondAccuracy, templates: tuple[Template, ...], progress: Progress
) -> list[Result]:
    tasks = sorted({template.task for template in templates} - {"explanation"}, reverse=True)
    results: list[Result] = []
    names = dict.fromkeys(held_out.options.baselines)
    for number, name in enumerate(names):
        progress(f"measuring {name}", number, len(names))
        results += baseline_results(held_out, beyond, name, tasks)
    return results

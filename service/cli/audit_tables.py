"""Tables and the JSON document of `vip5 bundle audit`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.evaluation.audit.report import AuditReport
from model.evaluation.audit.share import Share

_SECTIONS = {
    "leaks": "what training and identifiers reveal of the test targets",
    "identifiers": "identifiers",
    "coverage": "bundle and data",
    "codes": "codes",
}
_MEANINGS = {
    "next_number_test": "test target's number is the history's largest + 1",
    "next_number_val": "validation target's number is the history's largest + 1",
    "in_own_training": "test target is among the user's own training items",
    "in_own_history": "test target is in the history that the prompt shows",
    "in_training_reviews": "test target reviewed by the user in split train",
    "test_reviews_in_training": "test reviews whose user and item are in split train",
    "negatives_had": "given negatives that the user had",
    "never_trained_targets": "test target is in no user's training",
    "never_trained_items": "items in no user's training",
    "colliding": "identifiers with the tokens of another item",
    "not_generated": "identifiers without tokens, or with one never generated",
    "not_round_trip": "identifiers that decode to another text",
    "prefixes": "identifiers that are a prefix of another (no fault)",
    "inactive": "items that the catalog marks as inactive",
    "unreachable": "items that no search is sure to return",
    "only_in_bundle": "items of the bundle that are missing in the data",
    "only_in_data": "items of the data that are missing in the bundle",
    "targets_not_in_bundle": "test targets that are missing in the bundle",
    "other_index": "items with another identifier in the data",
    "not_of_codes": "identifiers that are not made of the codebook's words",
    "sharing_path": "items that share their path of codes with another one",
    "on_unseen_paths": "items on a path that was not trained on",
    "targets_on_seen_paths": "test target is on a trained path",
    "new_targets_on_seen_paths": "test target that nobody bought in training is on a trained path",
    "used_codes": "codes in use, of level",
    "full_paths": "trained paths without room for a new item",
    "next_last_code": "test target on the last item's path has the next last code",
}


def as_document(report: AuditReport) -> dict[str, object]:
    """The report with a ratio beside each count."""
    return {field.name: _plain(getattr(report, field.name)) for field in fields(report)}


def print_report(report: AuditReport) -> None:
    """Print the report as tables."""
    console = Console()
    console.print(
        f"bundle {report.bundle_hash}, domain {report.domain}, against {report.dataset} with {report.indexing} indices",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for section, title in _SECTIONS.items():
        found = getattr(report, section)
        if found is None:
            continue
        table = Table(title=title, title_justify="left")
        table.add_column()
        for heading in ("count", "of", "share"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("such as", overflow="fold", max_width=36)
        for field in fields(found):
            value, meaning = getattr(found, field.name), _MEANINGS[field.name]
            levels = value if isinstance(value, tuple) else ()
            for level, each in enumerate(levels, start=1):
                table.add_row(f"{meaning} {level}", *_cells(each))
            if not levels:
                table.add_row(meaning, *_cells(value))
        console.print(table)
    for template in report.templates:
        console.print(f"own template {template}", highlight=False, markup=False, soft_wrap=True)


def _plain(value: object) -> object:
    if isinstance(value, Share):
        return {"count": value.count, "of": value.of, "ratio": value.ratio, "examples": list(value.examples)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _cells(share: Share | None) -> tuple[str, str, str, str]:
    if share is None:
        return ("", "", "–", "no numbers")
    ratio = "" if share.ratio is None else f"{share.ratio:.2%}"
    return (f"{share.count:,}", f"{share.of:,}", ratio, escape(", ".join(share.examples)))

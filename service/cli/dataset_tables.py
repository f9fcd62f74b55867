"""Tables that `vip5 data show` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from model.datasets.summary import DatasetSummary, ReviewCounts
from service.cli.terminal import fact_table


def print_summary(summary: DatasetSummary) -> None:
    """Print the summary as tables, and a line for each rule by which something was left out."""
    console = Console()
    console.print(_counts(summary))
    if any(counts.num_reviews for counts in summary.reviews.values()):
        console.print(_reviews(summary))
    for rule, count in summary.faults.items():
        console.print(f"{count:,} left out while preparing: {rule}", highlight=False, markup=False, soft_wrap=True)


def _counts(summary: DatasetSummary) -> Table:
    lengths = summary.lengths
    features = "none"
    if summary.feature_dim is not None:
        features = f"{_share(summary.num_features, summary.num_items)}, {summary.feature_dim} wide"
    facts = {
        "source": summary.source,
        "users": f"{summary.num_users:,}, {summary.num_named_users:,} with a name",
        "items": f"{summary.num_items:,}",
        "titles": _share(summary.num_titles, summary.num_items),
        "images": _share(summary.num_images, summary.num_items),
        "features": features,
        "columns": ", ".join(summary.columns) or "none",
        "indices": f"{summary.indexing}: {', '.join(summary.examples_of_index)}, …",
        "interactions": f"{summary.num_interactions:,}{', with times' if summary.has_timestamps else ''}",
        "sparsity": f"{1 - summary.density:.4%} of all pairs do not occur",
        "per user": f"{lengths.shortest} to {lengths.longest}, mean {lengths.mean:.2f}, median {lengths.median:g}",
        "nothing to train": f"{lengths.num_too_short:,} users, with fewer than 3 interactions",
        "negatives": f"given for {summary.num_users_with_negatives:,} users",
    }
    return fact_table(f"dataset {summary.name}", facts)


def _reviews(summary: DatasetSummary) -> Table:
    table = Table(title="reviews", title_justify="left")
    table.add_column("split")
    for heading in ("reviews", "explanations", "feature words", "stars", "headlines"):
        table.add_column(heading, justify="right")
    for split, counts in summary.reviews.items():
        table.add_row(split, *_cells(counts))
    return table


def _cells(counts: ReviewCounts) -> list[str]:
    numbers = (
        counts.num_reviews,
        counts.num_with_explanation,
        counts.num_with_feature,
        counts.num_with_star_rating,
        counts.num_with_headline,
    )
    return [f"{number:,}" for number in numbers]


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.1%} of the items)"

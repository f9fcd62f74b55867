"""`vip5 data prepare`: makes datasets from common file formats."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.failures import UsageError
from service.cli.options import FeatureSource, Replace, input_file, input_folder
from service.cli.replacing import may_replace
from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    # Imported for real when a command runs: pyarrow takes its time to load.
    from model.datasets.dataset import Dataset
    from model.datasets.faults import Faults
    from model.progress import Progress

app = typer.Typer(help="Make a dataset from common file formats.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="The folder for the dataset.", file_okay=False)]
Name = Annotated[str | None, typer.Option(help="The name of the dataset.", show_default="the name of --out")]
Explanations = Annotated[
    list[Path] | None,
    input_file(
        "JSON lines, CSV or Parquet with user, item, explanation and, optionally, feature, star_rating, headline, "
        "split; the "
        "split may be part of the file's name instead (explanations.train.jsonl). Repeat it for several files."
    ),
]


@app.command(
    epilog="Example: vip5 data prepare lines --sequences sequential_data.txt --items items.jsonl "
    "--datamaps datamaps.json --out datasets/toys"
)
def lines(
    sequences: Annotated[Path, input_file("Lines `user item item …`, oldest item first.")],
    out: Out,
    items: Annotated[
        Path | None,
        input_file(
            "JSON lines, CSV or Parquet with item (as in the sequences), item_id or asin, and any of title, "
            "categories, brand, price, image."
        ),
    ] = None,
    datamaps: Annotated[
        Path | None,
        input_file("JSON with id2item and, optionally, id2user: from numbers to your own ids."),
    ] = None,
    explanations: Explanations = None,
    negatives: Annotated[
        Path | None,
        input_file("Lines `user item item …`: items that the user never had."),
    ] = None,
    features: FeatureSource = None,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Make a dataset from lines `user item item …`. Any file may be gzipped; broken lines are skipped and reported."""
    from model.datasets.lines import LinesSource, read_lines

    files = LinesSource(sequences, items, datamaps, tuple(explanations or ()), negatives, features)
    _prepare(lambda faults, report: read_lines(files, name or out.name, faults, report), out, replace=replace)


@app.command(
    epilog="Example: vip5 data prepare orders --orders orders.csv --items items.csv --features features.safetensors "
    "--out datasets/shop"
)
def orders(
    orders: Annotated[
        Path,
        input_file(
            "One order per line, with user_id, item_id, timestamp and, optionally, rating: CSV (.csv, .tsv), Parquet "
            "or JSON lines. Times are seconds or milliseconds since 1970, dates, or ISO 8601."
        ),
    ],
    out: Out,
    items: Annotated[
        Path | None,
        input_file(
            "One item per line, with item_id and any of title, category, categories, brand, price, image: CSV, Parquet "
            "or JSON lines."
        ),
    ] = None,
    explanations: Explanations = None,
    features: FeatureSource = None,
    core: Annotated[int, typer.Option(help="Fewest orders of each user and each item; 1 keeps everything.", min=1)] = 1,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Make a dataset from a table of orders. Any CSV or JSON may be gzipped; broken lines are skipped and reported."""
    from model.datasets.orders import OrdersSource, read_orders

    files = OrdersSource(orders, items, tuple(explanations or ()), features, core)
    _prepare(lambda faults, report: read_orders(files, name or out.name, faults, report), out, replace=replace)


@app.command(epilog="Example: vip5 data prepare vip5 --folder data/toys --out datasets/toys")
def vip5(
    folder: Annotated[
        Path,
        input_folder(
            "The folder of one domain: sequential_data.txt and any of datamaps.json, meta.json.gz, "
            "user_id2name.pkl, exp_splits.pkl, review_splits.pkl, negative_samples.txt."
        ),
    ],
    out: Out,
    features: Annotated[
        Path | None,
        input_folder(
            "Image embeddings: a folder with <asin>.npy files of one encoder, at any depth.",
            default="features in --folder, if it exists",
        ),
    ] = None,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Make a dataset from a folder that VIP5's or P5's preprocessing made. No code in a pickle is run."""
    from model.datasets.vip5_folder import read_vip5_folder

    _prepare(
        lambda faults, report: read_vip5_folder(folder, name or out.name, faults, report, features),
        out,
        replace=replace,
    )


@app.command(
    epilog="Example: vip5 data prepare amazon-raw --reviews reviews_Toys_and_Games_5.json.gz "
    "--metadata meta_Toys_and_Games.json.gz --out datasets/toys"
)
def amazon_raw(
    reviews: Annotated[Path, input_file("One review per line, plain or gzipped.")],
    out: Out,
    metadata: Annotated[Path | None, input_file("One item per line, plain or gzipped.")] = None,
    explanations: Explanations = None,
    features: FeatureSource = None,
    core: Annotated[
        int, typer.Option(help="Fewest reviews of each user and each item; 1 keeps everything.", min=1)
    ] = 5,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Make a dataset from McAuley's raw reviews of Amazon. Broken lines are skipped and reported."""
    from model.datasets.amazon_raw import RawSource, read_amazon_raw

    files = RawSource(reviews, metadata, tuple(explanations or ()), features, core)
    _prepare(lambda faults, report: read_amazon_raw(files, name or out.name, faults, report), out, replace=replace)


def check_free(out: Path, *, replace: bool) -> None:
    """Raise UsageError for a folder that is not empty, unless it holds a dataset that may be replaced."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "dataset.json").is_file():
        raise UsageError(f"--out {out} holds something other than a dataset; choose another folder")
    may_replace(f"--out {out} holds a dataset", "choose another folder", replace=replace)


def write_dataset(dataset: Dataset, out: Path) -> None:
    """Write the whole dataset or nothing."""
    from model.bundle.folders import publish, temporary_sibling

    folder = temporary_sibling(out)
    try:
        dataset.write(folder)
        publish(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _prepare(read: Callable[[Faults, Progress], Dataset], out: Path, *, replace: bool) -> None:
    """Read a dataset, write it, and report what was skipped."""
    from model.datasets.faults import Faults
    from model.datasets.raw_ids import raw_id_warning

    check_free(out, replace=replace)
    faults = Faults()
    with progress_bar() as report:
        dataset = read(faults, report)
        report("writing the dataset", 0, None)
        write_dataset(dataset, out)
    warning = raw_id_warning(dataset.catalog)
    for description in (*faults.descriptions(), *faults.notices, *([warning] if warning else [])):
        typer.echo(description, err=True)
    typer.echo(
        f"prepared {out}: {len(dataset.users):,} users, {len(dataset.catalog):,} items, "
        f"{len(dataset.sequences.items):,} interactions, {len(dataset.reviews):,} reviews"
    )

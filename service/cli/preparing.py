"""`vip5 data prepare`: from files that people have to a dataset."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    # Imported for real when a command runs: pyarrow takes its time to load.
    from model.datasets.dataset import Dataset
    from model.datasets.faults import Faults
    from model.progress import Progress

app = typer.Typer(help="Make a dataset from files that people have.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="The dataset's folder, made by this command.", file_okay=False)]
Replace = Annotated[bool, typer.Option("--replace", help="Put the dataset in the place of what --out holds.")]
Name = Annotated[str | None, typer.Option(help="What the dataset is called.", show_default="the name of --out")]
Explanations = Annotated[
    list[Path] | None,
    typer.Option(
        help="JSON lines with user, item, explanation and possibly feature, star_rating, headline, split; the split "
        "may stand in the file's name instead (explanations.train.jsonl). May be given several times.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(
        help="Image embeddings: a folder of <item_id>.npy, or a safetensors file beside its <same name>.ids.txt.",
        exists=True,
    ),
]


@app.command(
    epilog="Example: vip5 data prepare lines --sequences sequential_data.txt --items items.jsonl "
    "--datamaps datamaps.json --out datasets/toys"
)
def lines(
    sequences: Annotated[
        Path, typer.Option(help="Lines `user item item …`, oldest item first.", exists=True, dir_okay=False)
    ],
    out: Out,
    items: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with item (as the sequences call it), item_id or asin, and what there is of title, "
            "categories, brand, price, image.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    datamaps: Annotated[
        Path | None,
        typer.Option(help="JSON with id2item and possibly id2user: number to own id.", exists=True, dir_okay=False),
    ] = None,
    explanations: Explanations = None,
    negatives: Annotated[
        Path | None,
        typer.Option(help="Lines `user item item …` of items that the user never had.", exists=True, dir_okay=False),
    ] = None,
    features: Features = None,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Make a dataset from lines `user item item …`. Every file may be gzipped; broken lines are counted and named."""
    from model.datasets.lines import LinesSource, read_lines

    files = LinesSource(sequences, items, datamaps, tuple(explanations or ()), negatives, features)
    _prepare(lambda faults, report: read_lines(files, name or out.name, faults, report), out, replace=replace)


@app.command(epilog="Example: vip5 data prepare vip5 --folder data/toys --out datasets/toys")
def vip5(
    folder: Annotated[
        Path,
        typer.Option(
            help="One domain's folder: sequential_data.txt, and what there is of datamaps.json, meta.json.gz, "
            "user_id2name.pkl, exp_splits.pkl, review_splits.pkl, negative_samples.txt.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Out,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder with <asin>.npy files of one encoder, at any depth.",
            exists=True,
            file_okay=False,
            show_default="features in the folder, if it is there",
        ),
    ] = None,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Make a dataset from a folder as VIP5 and P5 preprocess it. Pickles are read without running what is in them."""
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
    reviews: Annotated[Path, typer.Option(help="One review per line, plain or gzipped.", exists=True, dir_okay=False)],
    out: Out,
    metadata: Annotated[
        Path | None, typer.Option(help="One item per line, plain or gzipped.", exists=True, dir_okay=False)
    ] = None,
    explanations: Explanations = None,
    features: Features = None,
    core: Annotated[
        int, typer.Option(help="Reviews that each user and each item must have; 1 keeps everything.", min=1)
    ] = 5,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Make a dataset from McAuley's raw reviews of Amazon. Broken lines are counted and named."""
    from model.datasets.amazon_raw import RawSource, read_amazon_raw

    files = RawSource(reviews, metadata, tuple(explanations or ()), features, core)
    _prepare(lambda faults, report: read_amazon_raw(files, name or out.name, faults, report), out, replace=replace)


def check_free(out: Path, *, replace: bool) -> None:
    """Refuse a folder that holds anything but a dataset that is to be replaced."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "dataset.json").is_file():
        raise typer.BadParameter(f"{out} holds something that is no dataset; choose another folder", param_hint="--out")
    if not replace:
        raise typer.BadParameter(f"{out} holds a dataset; choose another folder, or --replace it", param_hint="--out")


def write_dataset(dataset: Dataset, out: Path) -> None:
    """As a whole or not at all."""
    from model.bundle.folders import publish, temporary_sibling

    folder = temporary_sibling(out)
    try:
        dataset.write(folder)
        publish(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _prepare(read: Callable[[Faults, Progress], Dataset], out: Path, *, replace: bool) -> None:
    """Read a dataset, write it, and say what was left out."""
    from model.datasets.faults import Faults

    check_free(out, replace=replace)
    faults = Faults()
    with progress_bar() as report:
        dataset = read(faults, report)
        report("writing the dataset", 0, None)
        write_dataset(dataset, out)
    for description in faults.descriptions():
        typer.echo(description, err=True)
    typer.echo(
        f"prepared {out}: {len(dataset.users):,} users, {len(dataset.catalog):,} items, "
        f"{len(dataset.sequences.items):,} interactions, {len(dataset.reviews):,} reviews"
    )

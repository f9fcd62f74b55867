"""`vip5 data`: datasets to train on and to evaluate with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli import preparing
from service.cli.preparing import Out, Replace, check_free, write_dataset
from service.cli.terminal import progress_bar

IndexMethod = Literal["sequential", "random", "collaborative", "given"]

app = typer.Typer(help="Prepare datasets, look at them, and choose item identifiers.", no_args_is_help=True)
app.add_typer(preparing.app, name="prepare")


@app.command(epilog="Example: vip5 data index --data datasets/toys --method collaborative --out datasets/toys-tree")
def index(
    data: Annotated[Path, typer.Option(help="The dataset whose items get identifiers.", exists=True, file_okay=False)],
    out: Out,
    method: Annotated[
        IndexMethod,
        typer.Option(
            help="sequential: numbers by first appearance in users' sequences, as VIP5; this leaks what comes next, "
            "since neighbours in a history have neighbouring numbers. random: numbers drawn by lot. collaborative: a "
            "path such as `12 3 45` in a tree of items that the same users had in training. given: the texts of --file."
        ),
    ],
    seed: Annotated[int, typer.Option(help="For random and collaborative.", min=0)] = 0,
    branching: Annotated[int, typer.Option(help="Most children of a node, for collaborative.", min=2)] = 64,
    file: Annotated[
        Path | None, typer.Option(help="Lines item_id<TAB>index, for given.", exists=True, dir_okay=False)
    ] = None,
    replace: Replace = False,
) -> None:
    """Write the same dataset with other item identifiers, the texts that a model is trained to generate."""
    from model.datasets.clustering import Tree
    from model.datasets.dataset import Dataset
    from model.datasets.indexing import give_indices, index_items

    if (method == "given") != (file is not None):
        raise typer.BadParameter("--method given needs a file, and the other methods take none", param_hint="--file")
    check_free(out, replace=replace)
    with progress_bar() as report:
        report("reading the dataset", 0, None)
        dataset = Dataset.read(data)
        if method == "given":
            assert file is not None
            indexed = give_indices(dataset, file)
        else:
            indexed = index_items(dataset, method, Tree(branching, seed), report)
        report("writing the dataset", 0, None)
        write_dataset(indexed, out)
    typer.echo(f"indexed {out}: {len(indexed.catalog):,} items, {method}, such as {indexed.catalog.indices[0]!r}")


@app.command(epilog="Example: vip5 data show datasets/toys --json")
def show(
    dataset: Annotated[Path, typer.Argument(help="The folder with dataset.json.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Count what a dataset holds: users, items, interactions, titles, pictures, reviews, and what was left out."""
    from model.datasets.dataset import Dataset
    from model.datasets.summary import summarise
    from service.cli.dataset_tables import print_summary

    summary = summarise(Dataset.read(dataset))
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
    else:
        print_summary(summary)


@app.command(epilog="Example: vip5 data tokenizer --data datasets/toys --out tokenizer.json")
def tokenizer(
    data: Annotated[
        list[Path], typer.Option(help="A dataset to be read; may be given again.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="The tokenizer.json to write.", dir_okay=False)],
    words: Annotated[int, typer.Option(help="Words of titles and reviews that become one token.", min=0)] = 1000,
) -> None:
    """Make a small vocabulary for a backbone that is trained from scratch.

    Numbers are cut before their last two digits, and what is not among the words is written by its characters.
    """
    from model.datasets.dataset import Dataset
    from model.training.vocabulary import make_tokenizer

    made = make_tokenizer([Dataset.read(folder) for folder in data], words)
    out.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(out))
    typer.echo(f"wrote {out}: {made.get_vocab_size():,} tokens")

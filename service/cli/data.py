"""`vip5 data`: datasets for training and evaluation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli import preparing
from service.cli.failures import UsageError
from service.cli.options import AsJson, Data, Replace, input_file, input_folder, output_file
from service.cli.preparing import Out, check_free, write_dataset
from service.cli.terminal import make_folder_of, print_json, progress_bar

IndexMethod = Literal["sequential", "random", "collaborative", "given"]

app = typer.Typer(help="Prepare datasets, show them, and choose item identifiers.", no_args_is_help=True)
app.add_typer(preparing.app, name="prepare")


@app.command(epilog="Example: vip5 data index --data datasets/toys --method collaborative --out datasets/toys-tree")
def index(
    data: Data,
    out: Out,
    method: Annotated[
        IndexMethod,
        typer.Option(
            help="sequential: numbers by first appearance in users' sequences, as in VIP5; this leaks the next item, "
            "since neighbours in a history have neighbouring numbers. random: random numbers. collaborative: a path "
            "such as `12 3 45` in a tree that groups items of the same users in training. given: the texts in --file."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Seed of random and collaborative.", min=0)] = 0,
    branching: Annotated[int, typer.Option(help="Most children of a node of the tree, for collaborative.", min=2)] = 64,
    file: Annotated[Path | None, input_file("Lines item_id<TAB>index, for given.")] = None,
    replace: Replace = False,
) -> None:
    """Copy a dataset with other item identifiers, which are the texts that a model learns to generate."""
    from model.datasets.clustering import Tree
    from model.datasets.dataset import Dataset
    from model.datasets.indexing import give_indices, index_items
    from model.datasets.raw_ids import raw_id_warning

    if (method == "given") != (file is not None):
        raise UsageError("--method given needs --file, and the other methods take none")
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
    warning = raw_id_warning(indexed.catalog)
    if warning is not None:
        typer.echo(warning, err=True)
    typer.echo(f"indexed {out}: {len(indexed.catalog):,} items, {method}, such as {indexed.catalog.indices[0]!r}")


@app.command(epilog="Example: vip5 data show --data datasets/toys --json")
def show(data: Data, as_json: AsJson = False) -> None:
    """Count users, items, interactions, titles, pictures and reviews of a dataset, and what was skipped."""
    from model.datasets.dataset import Dataset
    from model.datasets.summary import summarise
    from service.cli.dataset_tables import print_summary

    summary = summarise(Dataset.read(data))
    if as_json:
        print_json(asdict(summary))
    else:
        print_summary(summary)


@app.command(epilog="Example: vip5 data tokenizer --data datasets/toys --out tokenizer.json")
def tokenizer(
    data: Annotated[list[Path], input_folder("A dataset to read; repeat it for several.")],
    out: Annotated[Path, output_file("The tokenizer.json to write.")],
    words: Annotated[
        int, typer.Option(help="Number of words of titles and reviews that become one token.", min=0)
    ] = 1000,
) -> None:
    """Make a small vocabulary for a backbone that is trained from scratch.

    Numbers are split before their last two digits; other words are spelled by their characters.
    """
    from model.datasets.dataset import Dataset
    from model.training.vocabulary import make_tokenizer

    made = make_tokenizer([Dataset.read(folder) for folder in data], words)
    make_folder_of(out)
    made.save(str(out))
    typer.echo(f"wrote {out}: {made.get_vocab_size():,} tokens")

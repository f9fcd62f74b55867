"""`vip5 data`: datasets for training and evaluation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli import preparing
from service.cli.failures import UsageError
from service.cli.options import AsJson, Data, Replace, input_file, input_folder, input_path, output_file
from service.cli.preparing import Out, check_free, write_dataset
from service.cli.terminal import print_json, progress_bar, write_output

IndexMethod = Literal["sequential", "random", "collaborative", "residual", "given"]

app = typer.Typer(help="Prepare datasets, show them, and choose item identifiers.", no_args_is_help=True)
app.add_typer(preparing.app, name="prepare")

MOST_CODES = 4096


@app.command(
    epilog="Example: vip5 data index --data datasets/toys --method residual --directions 10 --out datasets/toys-codes"
)
def index(
    data: Data,
    out: Out,
    method: Annotated[
        IndexMethod,
        typer.Option(
            help="sequential: numbers by first appearance in users' sequences, as in VIP5; this leaks the next item, "
            "since neighbours in a history have neighbouring numbers. random: random numbers. collaborative: a path "
            "such as `12 3 45` in a tree that groups items of the same users in training. residual: codes of what "
            "items look like, are called and are bought with, by residual k-means, so that new items have codes too; "
            "or the codes in --codes. given: the texts in --file."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Seed of random, collaborative and residual.", min=0)] = 0,
    branching: Annotated[int, typer.Option(help="Most children of a node of the tree, for collaborative.", min=2)] = 64,
    file: Annotated[Path | None, input_file("Lines item_id<TAB>index, for given.")] = None,
    pictures: Annotated[float, typer.Option(help="Weight of picture embeddings, for residual.", min=0)] = 1.0,
    titles: Annotated[float, typer.Option(help="Weight of titles (TF-IDF), for residual.", min=0)] = 0.0,
    text_columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of the items whose texts are read with the titles, for residual, such as categories,brand.",
            show_default=False,
        ),
    ] = None,
    purchases: Annotated[
        float, typer.Option(help="Weight of what the same users bought in training, for residual.", min=0)
    ] = 0.0,
    directions: Annotated[
        int,
        typer.Option(
            help="Project to so many directions that consecutive training purchases share most, for residual; 0: do "
            "not.",
            min=0,
        ),
    ] = 0,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Codes of each level, such as 8x8, for residual.",
            show_default="two levels, as fine as leaves 85 % of a held-out tenth of the items on trained paths",
        ),
    ] = None,
    last_codes: Annotated[
        int | None,
        typer.Option(
            help="Number of last codes, for residual.",
            show_default="twice the number of items on the fullest path, 8 to 512",
            min=1,
        ),
    ] = None,
    compact_last_codes: Annotated[
        bool,
        typer.Option("--compact-last-codes", help="Draw the last codes of a path among its first ones, for residual."),
    ] = False,
    first_code: Annotated[int, typer.Option(help="The first number in identifiers, for residual.", min=0)] = 100,
    codes: Annotated[
        Path | None,
        input_file("Ready codes for residual, in JSON: item ids to lists of codes, or such lists by item number."),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Which of several sets in --codes.", show_default=False)] = None,
    datamaps: Annotated[
        Path | None, input_file("JSON with id2item, from the item numbers of --codes to your own ids.")
    ] = None,
    replace: Replace = False,
) -> None:
    """Copy a dataset with other item identifiers, which are the texts that a model learns to generate."""
    from model.datasets.clustering import Tree
    from model.datasets.dataset import Dataset
    from model.datasets.given_codes import index_with_codes
    from model.datasets.indexing import give_indices, index_items
    from model.datasets.item_vectors import Weights
    from model.datasets.raw_ids import raw_id_warning
    from model.datasets.semantic import SemanticOptions, index_semantically

    if (method == "given") != (file is not None):
        raise UsageError("--method given needs --file, and the other methods take none")
    if codes is not None and method != "residual":
        raise UsageError("--codes is for --method residual; give that, or leave --codes out")
    columns = tuple(name.strip() for name in (text_columns or "").split(",") if name.strip())
    if columns and not titles:
        raise UsageError("--text-columns are read with the titles, which have no weight; give --titles, such as 0.7")
    weights = Weights(pictures, titles, purchases, columns)
    options = SemanticOptions(weights, directions, _sizes(levels), last_codes, first_code, seed, compact_last_codes)
    check_free(out, replace=replace)
    lines: list[str] = []
    with progress_bar() as report:
        report("reading the dataset", 0, None)
        dataset = Dataset.read(data)
        if file is not None:
            indexed = give_indices(dataset, file)
        elif codes is not None:
            indexed = index_with_codes(dataset, codes, variant, datamaps, first_code, seed)
        elif method == "residual":
            found = index_semantically(dataset, options, report)
            indexed, lines = found.dataset, found.report.lines()
        elif method != "given":
            indexed = index_items(dataset, method, Tree(branching, seed), report)
        report("writing the dataset", 0, None)
        write_dataset(indexed, out)
    warning = raw_id_warning(indexed.catalog)
    if warning is not None:
        typer.echo(warning, err=True)
    typer.echo(f"indexed {out}: {len(indexed.catalog):,} items, {method}, such as {indexed.catalog.indices[0]!r}")
    for line in lines:
        typer.echo(line)


def _sizes(levels: str | None) -> tuple[int, ...]:
    """The codes of each level in a text such as 8x8. Raises UsageError."""
    if levels is None:
        return ()
    sizes = levels.split("x")
    if not all(size.isascii() and size.isdigit() and 2 <= int(size) <= MOST_CODES for size in sizes):
        raise UsageError(
            f"--levels is {levels!r}; give the number of codes of each level, 2 to {MOST_CODES}, such as 8x8"
        )
    return tuple(map(int, sizes))


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
    identifiers_only: Annotated[
        bool,
        typer.Option(
            "--identifiers-only", help="The words of identifiers and nothing else, for prompts of items only."
        ),
    ] = False,
) -> None:
    """Make a small vocabulary for a backbone that is trained from scratch.

    Numbers are split before their last two digits; other words are spelled by their characters.
    """
    from model.datasets.dataset import Dataset
    from model.training.vocabulary import make_identifier_tokenizer, make_tokenizer

    datasets = [Dataset.read(folder) for folder in data]
    made = make_identifier_tokenizer(datasets) if identifiers_only else make_tokenizer(datasets, words)
    write_output(out, made.to_str(pretty=True).encode())
    typer.echo(f"wrote {out}: {made.get_vocab_size():,} tokens")


@app.command(
    epilog="Example: vip5 data additions --items new-items.csv --features new-features.safetensors --out new.json"
)
def additions(
    items: Annotated[
        Path,
        input_file(
            "The new items, one per line, with item_id and any of title, category, categories, brand, price, image: "
            "CSV, Parquet or JSON lines."
        ),
    ],
    features: Annotated[
        Path,
        input_path("The embeddings of their pictures: a file that vip5 features encode wrote, or a folder of .npy."),
    ],
    out: Annotated[Path, output_file("The JSON body to write.")],
) -> None:
    """Write the body that adds new items to a domain while it is served, for PATCH /admin/domains/NAME/catalog.

    The rows need no identifiers where the domain's are codes (vip5 data index --method residual): the service makes
    them from the embeddings. Broken lines are skipped and reported.
    """
    import json

    from model.datasets.additions import read_additions
    from model.datasets.faults import Faults
    from model.datasets.text_lines import Source

    faults = Faults()
    with progress_bar() as report:
        rows = read_additions(Source(items, faults, report), features)
    write_output(out, (json.dumps({"add": rows}, ensure_ascii=False) + "\n").encode())
    for description in (*faults.descriptions(), *faults.notices):
        typer.echo(description, err=True)
    typer.echo(f"wrote {out}: {len(rows):,} items")

"""`vip5 import`: foreign checkpoints into bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.terminal import progress_bar

app = typer.Typer(help="Import foreign checkpoints into a bundle.", no_args_is_help=True)

Checkpoint = Annotated[Path, typer.Option(help="State dict saved by torch (.pth).", exists=True, dir_okay=False)]
Config = Annotated[Path, typer.Option(help="The trainer's config.json.", exists=True, dir_okay=False)]
TokenizerPath = Annotated[
    Path | None,
    typer.Option(help="tokenizer.json, or the folder that has it. A bundle that has one needs none.", exists=True),
]
CatalogPath = Annotated[
    Path,
    typer.Option(
        help="Items, JSON lines (.jsonl, .jsonl.gz) or Parquet, with at least item_id and index.",
        exists=True,
        dir_okay=False,
    ),
]
UsersPath = Annotated[
    Path | None,
    typer.Option(
        help="Users, JSON lines or Parquet, with user_id, index and possibly name.", exists=True, dir_okay=False
    ),
]
FeaturesPath = Annotated[
    Path | None,
    typer.Option(
        help="Image embeddings: a file that `vip5 features encode` wrote, a folder of <item_id>.npy, or a safetensors "
        "file beside its <same name>.ids.txt.",
        exists=True,
    ),
]
DomainName = Annotated[str, typer.Option(help="What the domain is called in the bundle.")]
Out = Annotated[Path, typer.Option(help="The bundle; made if need be, else the domain is added to it.")]
Replace = Annotated[bool, typer.Option("--replace", help="Put the domain in the place of the one with its name.")]


@app.command(
    epilog="Example: vip5 import vip5 --checkpoint toys.pth --config config.json --tokenizer t5-small/ "
    "--catalog items.jsonl --features toys_vitb32/ --domain toys --out bundles/shop"
)
def vip5(
    checkpoint: Checkpoint,
    config: Config,
    catalog: CatalogPath,
    domain: DomainName,
    out: Out,
    tokenizer: TokenizerPath = None,
    users: UsersPath = None,
    features: FeaturesPath = None,
    replace: Replace = False,
) -> None:
    """Import a VIP5 checkpoint as a domain. Several domains of one bundle share its backbone."""
    from model.bundle.importers.domain import CheckpointSource, DomainSource
    from model.bundle.importers.vip5 import import_vip5

    source = CheckpointSource(checkpoint, config, tokenizer)
    with progress_bar() as progress:
        digest = import_vip5(source, DomainSource(domain, catalog, users, features, replace), out, progress)
    typer.echo(f"imported {domain} into {out}, bundle {digest}")


@app.command(
    epilog="Example: vip5 import p5 --checkpoint P5_toys_small.pth --config config.json --tokenizer t5-small/ "
    "--catalog items.jsonl --domain toys --out bundles/p5"
)
def p5(
    checkpoint: Checkpoint,
    config: Config,
    catalog: CatalogPath,
    domain: DomainName,
    out: Out,
    tokenizer: TokenizerPath = None,
    users: UsersPath = None,
    replace: Replace = False,
) -> None:
    """Import a P5 checkpoint, which has neither images nor adapters, as a domain."""
    from model.bundle.importers.domain import CheckpointSource, DomainSource
    from model.bundle.importers.p5 import import_p5

    source = CheckpointSource(checkpoint, config, tokenizer)
    with progress_bar() as progress:
        digest = import_p5(source, DomainSource(domain, catalog, users, None, replace), out, progress)
    typer.echo(f"imported {domain} into {out}, bundle {digest}")


@app.command(epilog="Example: vip5 import t5 --model t5-small/ --out bundles/t5-small")
def t5(
    model: Annotated[
        Path,
        typer.Option(
            help="Folder of a Hugging Face T5: config.json, model.safetensors (also sharded), tokenizer.json.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The bundle to make.")],
) -> None:
    """Import a plain T5 as the backbone of a bundle that has no domains yet, to be tuned."""
    from model.bundle.importers.t5 import import_t5

    with progress_bar() as progress:
        digest = import_t5(model, out, progress)
    typer.echo(f"imported {model.name} into {out}, bundle {digest}")

"""`vip5 import`: foreign checkpoints into bundles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.progress import Progress
from service.cli.failures import UsageError
from service.cli.options import Catalog, Domain, FeatureSource, Replace, input_file, input_folder, input_path
from service.cli.replacing import may_replace
from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    # Imported for real when a command runs: torch takes its time to load.
    from model.bundle.importers.domain import CheckpointSource, DomainSource

app = typer.Typer(help="Import foreign checkpoints into a bundle.", no_args_is_help=True)

Checkpoint = Annotated[Path, input_file("A state dict saved by torch (.pth) or safetensors.")]
Config = Annotated[Path, input_file("The trainer's config.json.")]
TokenizerPath = Annotated[
    Path | None,
    input_path("tokenizer.json, or the folder that holds it; needed for a new bundle."),
]
UsersPath = Annotated[
    Path | None,
    input_file("Users: JSON lines or Parquet, with user_id, index and, optionally, name."),
]
Out = Annotated[Path, typer.Option(help="The bundle: a new folder, or a bundle that the domain is added to.")]


@app.command(
    epilog="Example: vip5 import vip5 --checkpoint toys.pth --config config.json --tokenizer t5-small/ "
    "--catalog items.jsonl --features toys_vitb32/ --domain toys --out bundles/shop"
)
def vip5(
    checkpoint: Checkpoint,
    config: Config,
    catalog: Catalog,
    domain: Domain,
    out: Out,
    tokenizer: TokenizerPath = None,
    users: UsersPath = None,
    features: FeatureSource = None,
    replace: Replace = False,
) -> None:
    """Import a VIP5 checkpoint as a domain. The domains of one bundle share its backbone."""
    from model.bundle.importers.domain import CheckpointSource, DomainSource
    from model.bundle.importers.vip5 import import_vip5

    source = CheckpointSource(checkpoint, config, tokenizer)
    _add_domain(import_vip5, source, DomainSource(domain, catalog, users, features, replace), out)


@app.command(
    epilog="Example: vip5 import p5 --checkpoint P5_toys_small.pth --config config.json --tokenizer t5-small/ "
    "--catalog items.jsonl --domain toys --out bundles/p5"
)
def p5(
    checkpoint: Checkpoint,
    config: Config,
    catalog: Catalog,
    domain: Domain,
    out: Out,
    tokenizer: TokenizerPath = None,
    users: UsersPath = None,
    replace: Replace = False,
) -> None:
    """Import a P5 checkpoint, which has neither images nor adapters, as a domain."""
    from model.bundle.importers.domain import CheckpointSource, DomainSource
    from model.bundle.importers.p5 import import_p5

    source = CheckpointSource(checkpoint, config, tokenizer)
    _add_domain(import_p5, source, DomainSource(domain, catalog, users, None, replace), out)


@app.command(epilog="Example: vip5 import t5 --model t5-small/ --out bundles/t5-small")
def t5(
    model: Annotated[
        Path,
        input_folder("Folder of a Hugging Face T5: config.json, model.safetensors (also sharded), tokenizer.json."),
    ],
    out: Annotated[Path, typer.Option(help="The bundle to make.")],
    lora: Annotated[
        Path | None,
        input_folder(
            "A LoRA of this T5 that PEFT saved, to merge into it: adapter_config.json, adapter_model.safetensors.",
            default="none",
        ),
    ] = None,
    replace: Replace = False,
) -> None:
    """Import a plain T5 as the backbone of a new bundle without domains, to be tuned."""
    from model.bundle.importers.t5 import import_t5

    domains = _domains_of(out)
    present = None
    if domains is not None:
        named = f"the domains {', '.join(domains)}" if domains else "no domains"
        present = f"{out} is a bundle with a backbone already, and {named}"
    replace = may_replace(present, "choose another folder", replace=replace)
    with progress_bar() as progress:
        digest = import_t5(model, out, progress, replace=replace, lora=lora)
    typer.echo(f"imported {model.name} into {out}, bundle {digest}")


def _add_domain(
    read: Callable[[CheckpointSource, DomainSource, Path, Progress], str],
    checkpoint: CheckpointSource,
    domain: DomainSource,
    out: Path,
) -> None:
    from model.bundle.manifest import check_domain_name
    from model.errors import BundleError

    try:
        check_domain_name(domain.name)
    except BundleError as error:
        raise UsageError(f"--domain {error}") from error
    if checkpoint.tokenizer is None and not (out / "manifest.json").is_file():
        raise UsageError(f"{out} is not a bundle yet, and a new one needs the model's tokenizer; give --tokenizer")
    present = f"{out} has a domain {domain.name!r} already" if domain.name in (_domains_of(out) or ()) else None
    allowed = may_replace(present, "choose another name", replace=domain.replace)
    notices: list[str] = []
    with progress_bar() as progress:
        options = dataclasses.replace(domain, replace=allowed, notice=notices.append)
        digest = read(checkpoint, options, out, progress)
    for line in notices:
        typer.echo(line, err=True)
    typer.echo(f"imported {domain.name} into {out}, bundle {digest}")


def _domains_of(out: Path) -> tuple[str, ...] | None:
    """Names of the domains of a bundle; None if there is no bundle yet."""
    from model.bundle.layout import MANIFEST
    from model.bundle.manifest import read_manifest

    return read_manifest(out).domains if (out / MANIFEST).is_file() else None

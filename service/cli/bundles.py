"""`vip5 bundle`: looking at bundles."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

if TYPE_CHECKING:
    # Imported for real when a command runs: torch takes its time to load.
    from model.bundle.summary import BackboneSummary, BundleSummary, DomainSummary

app = typer.Typer(help="Look at bundles.", no_args_is_help=True)

Root = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder with manifest.json.", show_default=False)]


@app.command(epilog="Example: vip5 bundle verify bundles/shop")
def verify(bundle: Root) -> None:
    """Check digests, shapes, tokenizer and identifiers; exits 1 with the first fault if one is found."""
    summary = _summary(bundle)
    num_items = sum(domain.num_items for domain in summary.domains)
    typer.echo(
        f"ok: {bundle} holds {len(summary.domains)} domains with {num_items} items in {decimal(summary.size)}, "
        f"bundle {summary.hash}"
    )


@app.command(epilog="Example: vip5 bundle show bundles/shop --json")
def show(
    bundle: Root, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False
) -> None:
    """Show the backbone and the domains of a bundle, once it is verified."""
    summary = _summary(bundle)
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2))
        return
    console = Console()
    console.print(f"bundle {summary.hash}, {decimal(summary.size)}", highlight=False, soft_wrap=True)
    console.print(_backbone_table(summary.backbone))
    for domain in summary.domains:
        console.print(_domain_table(domain))


@app.command(epilog="Example: vip5 bundle audit --bundle bundles/toys --domain toys --data datasets/toys")
def audit(
    bundle: Annotated[Path, typer.Option(help="The folder with manifest.json.", exists=True, file_okay=False)],
    domain: Annotated[str, typer.Option(help="The domain to audit.")],
    data: Annotated[Path, typer.Option(help="The dataset that it was trained on.", exists=True, file_okay=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Count what makes figures better than they should be, and items that cannot be recommended.

    Says how often the next item's number is the history's largest plus one, which test items training has seen, which
    items it has not, which identifiers collide or do not read back, and how bundle and data differ.
    """
    from model.datasets.dataset import Dataset
    from model.evaluation.audit.report import audit_domain
    from service.cli.auditing import as_document, print_report

    report = audit_domain(bundle, domain, Dataset.read(data))
    if as_json:
        typer.echo(json.dumps(as_document(report), indent=2))
    else:
        print_report(report)


@app.command(epilog="Example: vip5 bundle export-onnx bundles/shop --out exported/shop")
def export_onnx(
    bundle: Root,
    out: Annotated[Path, typer.Option(help="A folder that does not exist yet.", show_default=False)],
    precision: Annotated[
        str, typer.Option(help="float32, or int8: the backbone in 7 bits, which changes rankings.")
    ] = "float32",
) -> None:
    """Write the network as ONNX graphs: the encoder and a decode step, with what belongs to a domain as inputs.

    `vip5 serve` needs no export: it makes the same graphs in memory.
    """
    from model.engine.onnx.export import export_onnx as export

    if precision not in ("float32", "int8"):
        raise typer.BadParameter(f"precision is {precision!r}; take float32 or int8", param_hint="--precision")
    export(bundle, out, "int8" if precision == "int8" else "float32")
    typer.echo(f"{out} holds encoder.onnx, step.onnx and the inputs of the domains")


def _summary(root: Path) -> BundleSummary:
    from model.bundle.bundle import open_bundle
    from model.bundle.summary import summarise

    return summarise(open_bundle(root))


def _backbone_table(backbone: BackboneSummary) -> Table:
    config = backbone.config
    return _table(
        "backbone",
        {
            "width": f"d_model {config.d_model}, d_ff {config.d_ff}, {config.num_heads} heads of {config.d_kv}",
            "layers": f"{config.num_layers} + {config.num_decoder_layers}, {config.feed_forward_proj}",
            "vocabulary": f"{config.vocab_size}, {'tied' if config.tie_word_embeddings else 'untied'} head",
            "parameters": f"{backbone.num_parameters:,}{', layer norms included' if backbone.has_layer_norms else ''}",
            "sha256": backbone.sha256,
            "size": decimal(backbone.size),
        },
    )


def _domain_table(domain: DomainSummary) -> Table:
    layout, encoder = domain.layout, domain.encoder
    images = "none" if encoder is None else f"{encoder.name}, {encoder.dim} wide, {layout.visual_tokens} tokens each"
    adapters = "none"
    if layout.bottleneck:
        sharing = "one for all tasks" if layout.one_adapter_for_all_tasks else "one per task"
        places = "with" if layout.cross_attention_adapter else "without"
        adapters = f"{layout.bottleneck} wide, {sharing}, {places} cross-attention"
    return _table(
        f"domain {domain.name}",
        {
            "items": f"{domain.num_items:,}, {domain.num_active_items:,} of them active",
            "users": "no table" if domain.num_users is None else f"{domain.num_users:,}",
            "columns": ", ".join(domain.columns) or "none",
            "adapters": adapters,
            "images": images,
            "features": "in the bundle" if domain.has_features else "not in the bundle",
            "parameters": f"{domain.num_parameters:,}{'' if domain.trained else ', never trained'}",
            "prompts": f"{domain.prompts.sequential}, {domain.prompts.direct}, {domain.prompts.max_tokens} tokens",
            "size": decimal(domain.size),
        },
    )


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left", min_width=60)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table

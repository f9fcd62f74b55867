"""`vip5 bundle`: looks at bundles, and exports what is in them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.filesize import decimal

from model.errors import BundleStoreError
from service.cli.failures import UsageError
from service.cli.options import AsJson, Bundle, Data, Domain, Replace, input_file, output_file
from service.cli.replacing import may_replace
from service.cli.terminal import fact_table, print_json, progress_bar

if TYPE_CHECKING:
    # Imported for real when a command runs: torch takes its time to load.
    from model.bundle.exchange.place import StorePlace
    from model.bundle.summary import BackboneSummary, BundleSummary, CodebookSummary, DomainSummary

app = typer.Typer(help="Verify, sign, show, audit, exchange and export bundles.", no_args_is_help=True)


@app.command(epilog="Example: vip5 bundle verify --bundle bundles/shop --key public.pem")
def verify(
    bundle: Bundle,
    key: Annotated[
        Path | None, input_file("Public keys, one of which must have signed the bundle.", default="no check")
    ] = None,
) -> None:
    """Check digests, shapes, tokenizer and identifiers; exits 1 and names the first fault if there is one."""
    summary = _summary(bundle, key)
    num_items = sum(domain.num_items for domain in summary.domains)
    typer.echo(
        f"ok: {bundle} holds {len(summary.domains)} domains with {num_items} items in {decimal(summary.size)}, "
        f"bundle {summary.hash}{'' if key is None else ', signed by a key of ' + key.name}"
    )


@app.command(epilog="Example: vip5 bundle new-key --out key.pem > public.pem")
def new_key(
    out: Annotated[Path, output_file("The file to make of the private key; only its owner may read it.")],
) -> None:
    """Make an Ed25519 key to sign bundles with, and print its public key for VIP5_TRUSTED_KEYS."""
    from model.bundle.signing_keys import make_key

    typer.echo(make_key(out), nl=False)


@app.command(epilog="Example: vip5 bundle sign --bundle bundles/shop --key key.pem")
def sign(
    bundle: Bundle,
    key: Annotated[Path, input_file("The private key in PEM, as vip5 bundle new-key makes it.")],
) -> None:
    """Verify a bundle's files and sign its manifest; signatures by other keys stay."""
    from model.bundle.signatures import sign_bundle

    typer.echo(f"{bundle / 'manifest.json.sig'} has the signature by key {sign_bundle(bundle, key)}")


@app.command(epilog="Example: vip5 bundle show --bundle bundles/shop --json")
def show(bundle: Bundle, as_json: AsJson = False) -> None:
    """Verify a bundle, then show its backbone and its domains."""
    summary = _summary(bundle)
    if as_json:
        print_json(asdict(summary))
        return
    console = Console()
    console.print(f"bundle {summary.hash}, {decimal(summary.size)}", highlight=False, soft_wrap=True)
    console.print(fact_table("backbone", _backbone_facts(summary.backbone)))
    for domain in summary.domains:
        console.print(fact_table(f"domain {domain.name}", _domain_facts(domain)))


@app.command(epilog="Example: vip5 bundle audit --bundle bundles/toys --domain toys --data datasets/toys")
def audit(bundle: Bundle, domain: Domain, data: Data, as_json: AsJson = False) -> None:
    """Count leaks that inflate figures, and items that cannot be recommended, against the training data.

    Reports how often the next item's number is the history's largest plus one, which test items training has seen,
    which items it has not seen, which identifiers collide or do not decode to themselves, and how bundle and data
    differ.
    """
    from model.datasets.dataset import Dataset
    from model.evaluation.audit.report import audit_domain
    from service.cli.audit_tables import as_document, print_report

    report = audit_domain(bundle, domain, Dataset.read(data))
    if as_json:
        print_json(as_document(report))
    else:
        print_report(report)


Store = Annotated[
    str, typer.Argument(help="The store: a URL such as s3://bucket/bundles, or a folder.", show_default=False)
]


@app.command(epilog="Example: vip5 bundle push s3://models/shop --bundle bundles/shop")
def push(
    store: Store,
    bundle: Bundle,
    latest: Annotated[bool, typer.Option(help="Let `latest` of the store name this bundle.")] = True,
    if_latest: Annotated[
        str | None,
        typer.Option(help="Refuse unless `latest` names the bundle of this hash now.", show_default="no check"),
    ] = None,
    resend: Annotated[bool, typer.Option(help="Send files that the store has, too, in case they are damaged.")] = False,
) -> None:
    """Verify a bundle and copy to a store what it lacks; a push that was interrupted goes on where it was."""
    from model.bundle.exchange.push import push as send
    from model.bundle.exchange.store import BUNDLE_HASH, BundleStore

    place = _place(store)
    if if_latest is not None and BUNDLE_HASH.fullmatch(if_latest) is None:
        raise UsageError(f"--if-latest is {if_latest!r}, not the hash of a bundle; write all of its 64 digits")
    with progress_bar() as progress:
        pushed = send(
            bundle,
            BundleStore(place),
            moves_latest=latest,
            expected_latest=if_latest,
            sends_all=resend,
            progress=progress,
        )
    typer.echo(
        f"pushed {pushed.num_sent} of {pushed.num_files} files, {decimal(pushed.bytes_sent)}; bundle {pushed.bundle}"
        f"{', now the latest' if pushed.is_latest else ''}"
    )


@app.command(epilog="Example: vip5 bundle pull s3://models/shop#3fa2c0de --to bundles")
def pull(
    store: Store,
    to: Annotated[Path, typer.Option(help="The folder that bundles are kept in.", file_okay=False)],
    key: Annotated[
        Path | None, input_file("Public keys, one of which must have signed the bundle.", default="no check")
    ] = None,
) -> None:
    """Copy a bundle from a store, the latest or that of a hash after #, and print its folder.

    Only what the folder's other bundles lack is fetched. The bundle is there under its hash once it is verified.
    """
    from model.bundle.exchange.pull import pull as fetch
    from model.bundle.exchange.pull import resolve
    from model.bundle.exchange.store import BundleStore
    from model.bundle.signatures import trusted_keys

    place = _place(store)
    opened = BundleStore(place)
    with progress_bar() as progress:
        pulled = fetch(opened, resolve(opened, place.bundle), to, trusted=trusted_keys(key), progress=progress)
    typer.echo(
        f"{pulled.folder}: fetched {pulled.num_fetched} of {pulled.num_files} files, {decimal(pulled.bytes_fetched)}"
    )


@app.command(epilog="Example: vip5 bundle index --bundle bundles/shop --index-cache /srv/indexes")
def index(
    bundle: Bundle,
    index_cache: Annotated[
        Path | None,
        typer.Option(
            help="The folder to keep the indexes in.",
            file_okay=False,
            envvar="VIP5_INDEX_CACHE",
            show_envvar=False,
            show_default="VIP5_INDEX_CACHE, else vip5-serve/indexes in the user's cache folder",
        ),
    ] = None,
) -> None:
    """Verify a bundle and compile its catalogs, so that its services start without tokenising them."""
    from model.bundle.bundle import open_bundle
    from model.bundle.index.cache import IndexCache
    from model.bundle.index.folder import usual_folder
    from service.settings.settings import NO_INDEX_CACHE

    folder = index_cache or usual_folder()
    if folder is None or folder == Path(NO_INDEX_CACHE):
        raise UsageError("there is no folder to keep indexes in: give --index-cache")
    cache = IndexCache(folder, min_items=0)
    for name, files in open_bundle(bundle, None, cache).domains.items():
        made = files.index
        if made is None or not cache.has(made.key):
            raise UsageError(f"no index can be kept in {folder}; give --index-cache a folder that only you write to")
        size = decimal(made.memory.size)
        typer.echo(f"{cache.path(made.key)} is the index of {name}: {len(files.catalog):,} items in {size}")


@app.command(epilog="Example: vip5 bundle export-onnx --bundle bundles/shop --out exported/shop")
def export_onnx(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    precision: Annotated[
        Literal["float32", "int8"],
        typer.Option(help="int8 rounds the encoder and the head, which changes rankings a little."),
    ] = "float32",
    replace: Replace = False,
) -> None:
    """Write the network as ONNX models: the encoder and a decode step, whose inputs include a domain's weights.

    `vip5 serve` needs no export: it builds the same models in memory.
    """
    from model.bundle.folders import is_free
    from model.engine.onnx.export import export_onnx as export

    present = None if is_free(out) else f"{out} exists already"
    replace = may_replace(present, "choose another folder", replace=replace)
    export(bundle, out, precision, replace=replace)
    typer.echo(f"{out} holds encoder.onnx, step.onnx and the inputs of the domains")


def _place(store: str) -> StorePlace:
    from model.bundle.exchange.place import StorePlace

    try:
        return StorePlace.parse(store)
    except BundleStoreError as error:
        raise UsageError(str(error)) from error


def _summary(root: Path, key: Path | None = None) -> BundleSummary:
    from model.bundle.bundle import open_bundle
    from model.bundle.signatures import trusted_keys
    from model.bundle.summary import summarise

    return summarise(open_bundle(root, trusted_keys(key)))


def _backbone_facts(backbone: BackboneSummary) -> dict[str, str]:
    config = backbone.config
    return {
        "width": f"d_model {config.d_model}, d_ff {config.d_ff}, {config.num_heads} heads of {config.d_kv}",
        "layers": f"{config.num_layers} + {config.num_decoder_layers}, {config.feed_forward_proj}",
        "vocabulary": f"{config.vocab_size}, {'tied' if config.tie_word_embeddings else 'untied'} head",
        "parameters": f"{backbone.num_parameters:,}{', layer norms included' if backbone.has_layer_norms else ''}",
        "sha256": backbone.sha256,
        "size": decimal(backbone.size),
    }


def _domain_facts(domain: DomainSummary) -> dict[str, str]:
    layout, encoder = domain.layout, domain.encoder
    images = "none" if encoder is None else f"{encoder.name}, {encoder.dim} wide, {layout.visual_tokens} tokens each"
    adapters = "none"
    if layout.bottleneck:
        sharing = "one for all tasks" if layout.one_adapter_for_all_tasks else "one per task"
        places = "with" if layout.cross_attention_adapter else "without"
        adapters = f"{layout.bottleneck} wide, {sharing}, {places} cross-attention"
    return {
        "items": f"{domain.num_items:,}, {domain.num_active_items:,} of them active",
        "users": "no table" if domain.num_users is None else f"{domain.num_users:,}",
        "columns": ", ".join(domain.columns) or "none",
        "adapters": adapters,
        "images": images,
        "features": "not in the bundle"
        if domain.num_features is None
        else f"in the bundle, {domain.num_features:,} of {domain.num_items:,} items have an embedding",
        "codebook": _codebook_fact(domain.codebook),
        "parameters": f"{domain.num_parameters:,}{'' if domain.trained else ', never trained'}",
        "prompts": f"{domain.prompts.sequential}, {domain.prompts.direct}, {domain.prompts.max_tokens} tokens",
        "size": decimal(domain.size),
    }


def _codebook_fact(codebook: CodebookSummary | None) -> str:
    if codebook is None:
        return "none, so new items need an index"
    sizes = "x".join(map(str, codebook.sizes))
    of_new = "made of their embeddings" if codebook.names_new_items else "to be given"
    counts = f"{sizes} codes, {codebook.num_paths:,} paths, {codebook.num_last:,} last codes"
    return f"{counts}; those of new items are {of_new}"

"""`vip5 features encode`, `export-onnx` and `import`: make files of image embeddings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.failures import UsageError
from service.cli.options import Catalog, Device, NumThreads, Restart, input_file, input_folder, input_path, output_file
from service.cli.terminal import make_folder_of, progress_bar

if TYPE_CHECKING:
    # Imported for real when a command runs: torch and transformers take their time to load.
    from feature_cache.encoding.opening import EncoderSource
    from feature_cache.encoding.sources import Listing

app = typer.Typer()

NAMES = "vitb32, vitb16, vitl14, rn50 or rn101, which are checked, or a name of your own"

_MODEL_HELP = (
    "A CLIP model: a local Hugging Face folder; for rn50 and rn101, a folder or file of weights that open_clip reads."
)
_ENCODER_HELP = f"The name of the encoder: {NAMES}."

Out = Annotated[Path, output_file("The safetensors file of embeddings.")]


@app.command(
    epilog="Example: vip5 features encode --model clip-vit-base-patch32/ --encoder vitb32 --catalog items.jsonl"
    " --images pictures/ --out features.safetensors"
)
def encode(
    out: Out,
    model: Annotated[Path | None, input_path(_MODEL_HELP)] = None,
    onnx: Annotated[
        Path | None,
        input_file("An ONNX file to run on ONNX Runtime, in place of --model on torch."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help=_ENCODER_HELP, show_default=False)] = None,
    images: Annotated[
        Path | None,
        input_folder(
            "The folder of pictures; without --catalog, they are named <item id>.jpg, .png or the like.",
            default="the folder of --catalog",
        ),
    ] = None,
    catalog: Annotated[
        Path | None,
        input_file("Items: JSON lines or Parquet, with item_id and image, a path below --images or an http(s) URL."),
    ] = None,
    report: Annotated[
        Path | None,
        output_file("JSON lines that list the skipped pictures and why.", default="beside --out, as .report.jsonl"),
    ] = None,
    downloads: Annotated[
        Path | None,
        typer.Option(
            help="The folder that keeps downloaded pictures.",
            file_okay=False,
            show_default="vip5/pictures in the user's cache",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host of your own network, or host:port, that pictures may come from; private addresses and ports"
            " other than 80 and 443 are refused otherwise. May be repeated.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Edge in pixels of the pictures of an --onnx file that another tool made.", min=1, show_default=False
        ),
    ] = None,
    device: Device = "cpu",
    batch_size: Annotated[int, typer.Option(help="Number of pictures in a batch.", min=1)] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes that read pictures, 0 for none; with --ray, of actors that encode.",
            min=0,
            show_default="one per core; 1 with --ray",
        ),
    ] = None,
    num_threads: NumThreads = None,
    restart: Restart = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Encode on the Ray cluster that RAY_ADDRESS names, or a local one.")
    ] = False,
) -> None:
    """Encode pictures with a CLIP image tower, in batches; embeddings are not normalised, as in VIP5.

    Broken pictures are skipped and reported. An interrupted run continues where it stopped when it is started again,
    with the same result; until then, its work is kept beside --out, in a folder that ends in .work.
    """
    if images is None and catalog is None:
        raise UsageError("give --images, --catalog or both")
    from feature_cache.encoding.addresses import AllowedHosts
    from feature_cache.encoding.downloads import Downloads
    from feature_cache.encoding.encode import Destination, EncodingOptions, encode_catalog, encode_here
    from feature_cache.encoding.preparation import PictureReader
    from model.bundle.features import write_feature_pieces
    from model.bundle.folders import write_whole

    source = _source(model, onnx, encoder, image_size, device, num_threads)
    listing = _listing(images, catalog)
    pictures = Downloads(downloads or _cache(), allowed_hosts=AllowedHosts.parse(allow_host or []))
    root = images if images is not None else (catalog or Path()).parent
    destination = Destination(out, report or out.with_suffix(".report.jsonl"), write_feature_pieces, write_whole)
    with progress_bar() as progress:
        progress("loading the encoder", 0, None)
        loaded = source.load()
        reader = PictureReader(root.resolve(), pictures, loaded.preprocessing)
        if ray:
            from feature_cache.encoding.on_ray import encode_on_ray

            run = encode_on_ray(source, reader, num_towers=max(workers or 1, 1), has_gpu=device != "cpu")
        else:
            run = encode_here(loaded, reader, os.cpu_count() or 1 if workers is None else workers)
        summary = encode_catalog(listing, loaded, run, destination, EncodingOptions(batch_size, restart), progress)
    resumed = f", {summary.num_resumed} of them by an earlier run" if summary.num_resumed else ""
    skipped = f", {summary.num_skipped} skipped, see {destination.report}" if summary.num_skipped else ""
    typer.echo(f"encoded {summary.num_encoded} pictures with {loaded.name} into {out}{resumed}{skipped}")


@app.command(
    epilog="Example: vip5 features export-onnx --model clip-vit-base-patch32/ --encoder vitb32 --out vitb32.onnx"
)
def export_onnx(
    model: Annotated[Path, input_path(_MODEL_HELP)],
    encoder: Annotated[str, typer.Option(help=_ENCODER_HELP, show_default=False)],
    out: Annotated[Path, output_file("The ONNX file.")],
) -> None:
    """Write a CLIP image tower as ONNX, with its name and preprocessing, and check that it agrees with torch."""
    from feature_cache.encoding.onnx_export import export_onnx
    from feature_cache.encoding.opening import TorchSource

    make_folder_of(out)
    with progress_bar() as progress:
        progress("exporting", 0, None)
        distance = export_onnx(TorchSource(model.resolve(), encoder).load(), out)
    typer.echo(f"exported {encoder} to {out}; the largest cosine distance to torch is {distance:.1e}")


@app.command(
    "import",
    epilog="Example: vip5 features import --features features/vitb32_features --catalog items.jsonl"
    " --out features.safetensors",
)
def import_folder(
    features: Annotated[
        Path,
        input_folder("A folder with <item_id>.npy, flat or in sub-folders as VIP5's."),
    ],
    catalog: Catalog,
    out: Out,
) -> None:
    """Write a folder of .npy embeddings, such as VIP5's, into one file, in the order of the catalog."""
    from model.bundle.catalog import Catalog
    from model.bundle.features import write_features
    from model.bundle.tables import read_source
    from model.datasets.faults import Faults
    from model.datasets.feature_folders import read_feature_folders

    faults = Faults()
    items = Catalog.from_table(read_source(catalog), catalog.name)
    with progress_bar() as progress:
        found = read_feature_folders(features, items, faults, progress)
    make_folder_of(out)
    write_features(out, found)
    for description in (*faults.descriptions(), *faults.notices):
        typer.echo(description, err=True)
    typer.echo(f"imported {len(found.item_ids)} embeddings, {found.dim} wide, of {len(items)} items into {out}")


def _source(
    model: Path | None,
    onnx: Path | None,
    encoder: str | None,
    image_size: int | None,
    device: str,
    num_threads: int | None,
) -> EncoderSource:
    """Paths are made absolute, because worker processes may have another working directory."""
    from feature_cache.encoding.opening import OnnxSource, TorchSource

    if (model is None) == (onnx is None):
        raise UsageError("give either --model or --onnx")
    if onnx is not None:
        return OnnxSource(onnx.resolve(), encoder, image_size, device, num_threads)
    if model is None or encoder is None:
        raise UsageError(f"name the model's encoder with --encoder: {NAMES}")
    return TorchSource(model.resolve(), encoder, device, num_threads)


def _listing(images: Path | None, catalog: Path | None) -> Listing:
    from feature_cache.encoding.sources import list_folder, list_items
    from model.bundle.columns import name_column, optional_text_column, require_unique, strings
    from model.bundle.tables import read_source

    if catalog is None:
        return list_folder(images or Path())
    table = read_source(catalog)
    item_ids = name_column(table, "item_id", catalog.name)
    require_unique(item_ids, "item_id", catalog.name)
    column = optional_text_column(table, "image", catalog.name)
    return list_items(zip(strings(item_ids), column.to_pylist(), strict=True))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vip5" / "pictures"

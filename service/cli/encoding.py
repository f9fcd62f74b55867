"""`vip5 features encode`, `export-onnx` and `import`: where image embeddings come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    # Imported for real when a command runs: torch and transformers take their time to load.
    from feature_cache.encoding.opening import EncoderSource
    from feature_cache.encoding.sources import Listing

app = typer.Typer()

NAMES = "vitb32, vitb16, vitl14, rn50 or rn101, which are checked, or a name of your own"

Model = Annotated[
    Path | None,
    typer.Option(
        help="A CLIP model: a local Hugging Face folder; for rn50 and rn101 a folder or a file of weights"
        " that open_clip reads.",
        exists=True,
        show_default=False,
    ),
]
EncoderName = Annotated[str | None, typer.Option(help=f"What the encoder is called: {NAMES}.", show_default=False)]
Out = Annotated[Path, typer.Option(help="The safetensors file of embeddings.", dir_okay=False)]


@app.command(
    epilog="Example: vip5 features encode --model clip-vit-base-patch32/ --encoder vitb32 --catalog items.jsonl"
    " --images pictures/ --out features.safetensors"
)
def encode(
    out: Out,
    model: Model = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            help="Run this ONNX file on ONNX Runtime instead of a model on torch.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    encoder: EncoderName = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The folder of pictures. Without --catalog each is called <item id>.jpg, .png or the like.",
            exists=True,
            file_okay=False,
            show_default="the folder of --catalog",
        ),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(
            help="Items, JSON lines or Parquet, with item_id and image: a path below --images, or an http(s) address.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines that say which pictures were skipped, and why.",
            dir_okay=False,
            show_default="beside --out, as .report.jsonl",
        ),
    ] = None,
    downloads: Annotated[
        Path | None,
        typer.Option(
            help="Where pictures from the web are kept.",
            file_okay=False,
            show_default="vip5/pictures in the user's cache",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Edge of an ONNX file's pictures, if it was made elsewhere.", min=1, show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    batch_size: Annotated[int, typer.Option(help="Pictures that are encoded at once.", min=1)] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that read pictures, 0 for none; with --ray, actors that encode.",
            min=0,
            show_default="one per core; 1 with --ray",
        ),
    ] = None,
    num_threads: Annotated[
        int | None, typer.Option(help="CPU threads of the encoder.", min=1, show_default="all cores")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Drop what an unfinished run has done.")] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Encode on the Ray cluster that RAY_ADDRESS names, or a local one.")
    ] = False,
) -> None:
    """Encode pictures with a CLIP image tower, in batches; embeddings are not normalised, as in VIP5.

    Broken pictures are skipped and reported. A run that was killed goes on where it stopped when it is started again,
    with the same result; until then its work lies beside --out, in a folder that ends in .work.
    """
    if images is None and catalog is None:
        raise typer.BadParameter("give --images, --catalog or both")
    from feature_cache.encoding.downloads import Downloads
    from feature_cache.encoding.encode import Destination, EncodingOptions, encode_catalog, encode_here
    from feature_cache.encoding.preparation import PictureReader
    from model.bundle.features import write_feature_pieces

    source = _source(model, onnx, encoder, image_size, device, num_threads)
    listing = _listing(images, catalog)
    root = images if images is not None else (catalog or Path()).parent
    destination = Destination(out, report or out.with_suffix(".report.jsonl"), write_feature_pieces)
    with progress_bar() as progress:
        progress("loading the encoder", 0, None)
        loaded = source.load()
        reader = PictureReader(root.resolve(), Downloads(downloads or _cache()), loaded.preprocessing)
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
    model: Model,
    encoder: EncoderName,
    out: Annotated[Path, typer.Option(help="The ONNX file.", dir_okay=False)],
) -> None:
    """Write a CLIP image tower as ONNX, with its name and preprocessing, once it is found to agree with torch."""
    if model is None or encoder is None:
        raise typer.BadParameter("give --model and --encoder")
    from feature_cache.encoding.onnx_export import export_onnx
    from feature_cache.encoding.opening import TorchSource

    with progress_bar() as progress:
        progress("exporting", 0, None)
        distance = export_onnx(TorchSource(model.resolve(), encoder).load(), out)
    typer.echo(f"exported {encoder} to {out}; it is {distance:.1e} from torch in cosine at most")


@app.command(
    "import",
    epilog="Example: vip5 features import --folder features/vitb32_features --catalog items.jsonl"
    " --out features.safetensors",
)
def import_folder(
    folder: Annotated[
        Path,
        typer.Option(help="Holds <item_id>.npy, flat or in folders as VIP5 has them.", exists=True, file_okay=False),
    ],
    catalog: Annotated[
        Path,
        typer.Option(help="Items, JSON lines or Parquet, with item_id and index.", exists=True, dir_okay=False),
    ],
    out: Out,
) -> None:
    """Bring a folder of .npy embeddings, such as VIP5's, into one file, in the catalog's order."""
    from model.bundle.catalog import Catalog
    from model.bundle.features import write_features
    from model.bundle.tables import read_source
    from model.datasets.faults import Faults
    from model.datasets.feature_folders import read_feature_folders

    faults = Faults()
    items = Catalog.from_table(read_source(catalog), catalog.name)
    with progress_bar() as progress:
        found = read_feature_folders(folder, items, faults, progress)
    write_features(out, found)
    for description in faults.descriptions():
        typer.echo(f"skipped: {description}", err=True)
    typer.echo(f"imported {len(found.item_ids)} embeddings, {found.dim} wide, of {len(items)} items into {out}")


def _source(
    model: Path | None,
    onnx: Path | None,
    encoder: str | None,
    image_size: int | None,
    device: str,
    num_threads: int | None,
) -> EncoderSource:
    """Paths are made absolute: other processes and machines may stand elsewhere."""
    from feature_cache.encoding.opening import OnnxSource, TorchSource

    if (model is None) == (onnx is None):
        raise typer.BadParameter("give either --model or --onnx")
    if onnx is not None:
        return OnnxSource(onnx.resolve(), encoder, image_size, device, num_threads)
    if model is None or encoder is None:
        raise typer.BadParameter(f"name the model's encoder with --encoder: {NAMES}")
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

"""How many images per second does `vip5 features encode` encode, compared with a plain loop?

Question  For a catalog's images through CLIP's ViT-B/32: how much faster are reading in worker processes, batching and
          ONNX Runtime than a simple script with transformers that makes one `Image.open`, one processor call and one
          `get_image_features` call per image?
Method    ViT-B/32's dimensions with random weights; CC0 photographs. Each round encodes the same images with every
          contender and reverses their order; the first round is a warm-up. `Ours` does all the work of `vip5 features
          encode`, including journal, report and file, except starting the worker processes, which a long run does
          once. All contenders use the same number of threads.
Output    Images per second (median and slowest round), ratio to the plain loop, and the largest cosine distance from
          its embeddings; the last line is JSON.

    python -m benchmarks.clip_encoding [--pictures 160] [--rounds 5] [--threads 2] [--workers 2]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from benchmarks.commit import commit
from feature_cache.encoding.downloads import Downloads
from feature_cache.encoding.encode import Destination, EncodingOptions, encode_batch, encode_catalog
from feature_cache.encoding.journal import EncodedBatch
from feature_cache.encoding.onnx_export import export_onnx
from feature_cache.encoding.opening import OnnxSource, TorchSource
from feature_cache.encoding.pictures import FORMATS
from feature_cache.encoding.preparation import Batch, PictureReader, prepare_batches
from feature_cache.encoding.sources import Listing, Picture
from feature_cache.encoding.towers import Encoder
from model.bundle.features import load_features, write_feature_pieces
from model.bundle.folders import write_whole

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT.parent / "shared" / "data" / "images"
BATCH_SIZE = 16
READ_AHEAD = 2  # batches per worker, as in preparation.py

Features = NDArray[np.float32]


class PlainLoop:
    """The simple script."""

    def __init__(self, folder: Path, pictures: list[Path]) -> None:
        self._clip = CLIPModel.from_pretrained(folder).eval()
        self._processor = CLIPImageProcessorPil.from_pretrained(folder)
        self._pictures = pictures

    def __call__(self) -> tuple[float, Features]:
        """Seconds and embeddings."""
        started = time.perf_counter()
        rows = []
        with torch.inference_mode():
            for path in self._pictures:
                inputs = self._processor(images=Image.open(path, formats=FORMATS), return_tensors="pt")
                rows.append(self._clip.get_image_features(**inputs).pooler_output[0].numpy())
        return time.perf_counter() - started, np.stack(rows)


class Ours:
    """`vip5 features encode`."""

    def __init__(self, encoder: Encoder, pictures: list[Path], num_workers: int, folder: Path) -> None:
        self._encoder = encoder
        self._reader = PictureReader(PICTURES, Downloads(folder / "cache"), encoder.preprocessing)
        self._listing = Listing(tuple(Picture(str(n), path.name) for n, path in enumerate(pictures)), ())
        self._num_workers = num_workers
        out, report = folder / "features.safetensors", folder / "report.jsonl"
        self._destination = Destination(out, report, write_feature_pieces, write_whole)
        self._started = 0.0

    def __call__(self) -> tuple[float, Features]:
        """Seconds after the workers have started, and embeddings."""
        options = EncodingOptions(BATCH_SIZE)
        encode_catalog(self._listing, self._encoder, self._encode, self._destination, options, lambda *_: None)
        seconds = time.perf_counter() - self._started
        found = load_features(self._destination.out)
        assert found.item_ids == tuple(picture.item_id for picture in self._listing.pictures)
        return seconds, found.features.astype(np.float32)

    def _encode(self, batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
        """Start with empty batches, as many as are read ahead: once the first returns, no image has been read."""
        empty = [Batch(-1, 0, ())] * max(READ_AHEAD * self._num_workers, 1)
        prepared = prepare_batches(self._reader, itertools.chain(empty, batches), self._num_workers)
        next(prepared)
        self._started = time.perf_counter()
        yield from (encode_batch(self._encoder, one) for one in prepared if one.number >= 0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare encoding in batches with the plain loop.")
    parser.add_argument("--pictures", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not PICTURES.is_dir():
        print("skipped: ../shared/data/images does not exist")
        return 0
    torch.set_num_threads(options.threads)
    pictures = list(itertools.islice(itertools.cycle(sorted(PICTURES.glob("*.jpg"))), options.pictures))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _save_vitb32(folder / "clip")
        on_torch = TorchSource(folder / "clip", "vitb32").load()
        export_onnx(on_torch, folder / "vitb32.onnx")
        on_onnx = OnnxSource(folder / "vitb32.onnx", num_threads=options.threads).load()
        contenders: dict[str, PlainLoop | Ours] = {
            "plain loop": PlainLoop(folder / "clip", pictures),
            "torch": Ours(on_torch, pictures, 0, folder),
            "torch, workers": Ours(on_torch, pictures, options.workers, folder),
            "ONNX Runtime": Ours(on_onnx, pictures, 0, folder),
            "ONNX Runtime, workers": Ours(on_onnx, pictures, options.workers, folder),
        }
        seconds, features = _run_in_turn(contenders, options.rounds)
    _report(options, seconds, features)
    return 0


def _save_vitb32(folder: Path) -> None:
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(projection_dim=512)).save_pretrained(folder)  # the defaults are ViT-B/32's
    CLIPImageProcessorPil().save_pretrained(folder)


def _run_in_turn(
    contenders: dict[str, PlainLoop | Ours], num_rounds: int
) -> tuple[dict[str, list[float]], dict[str, Features]]:
    """Seconds of each round except the first, and the last round's embeddings."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    features: dict[str, Features] = {}
    order = list(contenders)
    for number in range(num_rounds + 1):
        for name in order:
            elapsed, features[name] = contenders[name]()
            if number > 0:
                seconds[name].append(elapsed)
        order.reverse()
    return seconds, features


def _report(options: argparse.Namespace, seconds: dict[str, list[float]], features: dict[str, Features]) -> None:
    plain = float(np.median(seconds["plain loop"]))
    found = {}
    print(f"{'':24}{'pictures/s':>12}{'slowest':>10}{'ratio':>8}{'distance':>11}")
    for name, rounds in seconds.items():
        median = float(np.median(rounds))
        figures = {
            "pictures_per_s": round(options.pictures / median, 2),
            "slowest_pictures_per_s": round(options.pictures / max(rounds), 2),
            "ratio": round(plain / median, 2),
            "cosine_distance": float(f"{_distance(features[name], features['plain loop']):.1e}"),
        }
        found[name] = figures
        rate, slowest, ratio, distance = figures.values()
        print(f"{name:24}{rate:12.1f}{slowest:10.1f}{ratio:8.2f}{distance:11.1e}")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "onnxruntime", "pillow")}
    head = {"benchmark": "clip_encoding", "commit": commit(), "python": platform.python_version(), **versions}
    print(json.dumps({**head, **vars(options), "batch_size": BATCH_SIZE, "contenders": found}))


def _distance(a: Features, b: Features) -> float:
    return float((1 - (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).max())


if __name__ == "__main__":
    sys.exit(main())

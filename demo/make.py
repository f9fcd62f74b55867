"""Makes the demonstration: draws pictures, simulates customers, trains the encoder and the model.

    python -m demo.make --out demo/bundle

It also writes

    <out>-text/            a bundle that was trained on prompts without pictures, for comparison
    <out>-clip/            the image encoder, in Hugging Face's format
    <out>-pictures/        the catalogs' `image` column is relative to it
    <out>-held-out/        customers that no model was trained on, one dataset per domain
    <out>-requests.jsonl   bodies for HTTP or `vip5 predict`

The backbone is trained on one half of spring's customers, the adapters on the other; summer's are held out. The same
code makes the same files, as far as sums of floats agree between processors. An interrupted run resumes when it is
started again. Finished models are not trained again, even if the code has changed; delete <out>-work/ to start over.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch

from demo.clip import TinyClip, caption, retrieval_accuracy, train_clip, untrained_clip
from demo.datasets import Shop, make_dataset, texts_of
from demo.designs import ASSORTMENTS, LOOKS, Look, unsold_designs
from demo.language import make_tokenizer
from demo.people import Person
from demo.pictures import draw_catalog, draw_designs, embed_catalog
from demo.progress import progress_bar
from demo.requests import write_requests
from model.bundle.features import ItemFeatures
from model.bundle.layout import MANIFEST
from model.bundle.manifest import read_manifest
from model.datasets.dataset import Dataset
from model.datasets.semantic import SemanticOptions, index_semantically
from model.errors import Vip5Error
from model.prompts.assembly import UNKNOWN_TITLE
from model.prompts.templates import TEMPLATES
from model.training.config import Run, read_run
from model.training.tuning import tune

SEED = 5
RUNS = Path(__file__).parent / "runs"
"""Run files; their paths are relative to the work folder that they are copied into."""
CHAINS = (("backbone-first", "backbone", "bundle"), ("text-backbone",))
"""Run files, each of which starts from what the one before it wrote. The chains do not need each other."""
CODES = {
    "toys": SemanticOptions(num_directions=10, sizes=(6, 12), first_word=100),
    "garments": SemanticOptions(num_directions=8, sizes=(12, 12), first_word=200),
}
"""How a shop's identifiers are made; each shop has codes of its own."""


@dataclass(frozen=True)
class Recipe:
    """Sizes. Without `num_steps`, a model is trained for as many steps as its run file says."""

    looks: tuple[Look, ...] = LOOKS
    num_clip_pictures: int = 1008
    num_clip_held_out: int = 144  # of these
    num_clip_steps: int = 700
    num_customers: int = 3000  # for the backbone, and as many for the adapters
    num_held_out: int = 2000
    num_steps: int | None = None


@dataclass(frozen=True)
class Places:
    """Paths of all files."""

    bundle: Path

    @property
    def text_bundle(self) -> Path:
        return self._beside("text")

    @property
    def clip(self) -> Path:
        return self._beside("clip")

    @property
    def pictures(self) -> Path:
        return self._beside("pictures")

    @property
    def held_out(self) -> Path:
        return self._beside("held-out")

    @property
    def work(self) -> Path:
        """Datasets and checkpoints, which can be deleted afterwards."""
        return self._beside("work")

    @property
    def requests(self) -> Path:
        return self._beside("requests.jsonl")

    def _beside(self, suffix: str) -> Path:
        return self.bundle.with_name(f"{self.bundle.name}-{suffix}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.make", description="Make the demonstration bundle.")
    parser.add_argument(
        "--out", type=Path, default=Path("demo/bundle"), help="new folder for the bundle (default: demo/bundle)"
    )
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads of each process (default: 1)")
    parser.add_argument(
        "--num-processes", type=int, default=len(CHAINS), help=f"models trained at once (default: {len(CHAINS)})"
    )
    options = parser.parse_args(arguments)
    if options.out.exists():
        print(f"{options.out} exists already; remove it, or name another folder with --out", file=sys.stderr)
        return 1
    torch.set_num_threads(options.num_threads)
    try:
        print(f"{options.out}: bundle {make(options.out, num_processes=options.num_processes)}")
    except Vip5Error as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make(out: Path, recipe: Recipe = Recipe(), num_processes: int = 1) -> str:
    """Write everything; returns the bundle's hash."""
    places = Places(out)
    shops = write_data(places, recipe)
    digest, _ = _train_all(places.work, recipe, num_processes)
    shutil.copytree(places.work / "bundle", out)
    shutil.copytree(places.work / "text-backbone", places.text_bundle)
    write_requests(places.requests, [(shop, Customers.of(shop, recipe).held_out) for shop in shops], SEED)
    return digest


def write_data(places: Places, recipe: Recipe) -> list[Shop]:
    """Write the encoder, the pictures, the datasets and the tokenizer; returns the shops."""
    places.work.mkdir(parents=True, exist_ok=True)
    shops = [Shop.opened(assortment, SEED, recipe.looks) for assortment in ASSORTMENTS]
    clip = _encoder(shops, recipe, places.clip)
    for shop in shops:
        draw_catalog(shop, places.pictures, SEED)
        _write_datasets(shop, embed_catalog(shop, places.pictures, clip), recipe, places)
    make_tokenizer(_texts(places.work)).save(str(places.work / "tokenizer.json"))
    return shops


def _encoder(shops: Sequence[Shop], recipe: Recipe, folder: Path) -> TinyClip:
    """Train CLIP on pictures of things that the shops do not sell, so that all items are new to it."""
    clip = untrained_clip([kind.name for shop in shops for kind in shop.assortment.kinds], SEED)
    if folder.exists():
        return clip.loaded(folder)
    chance = random.Random(f"encoder {SEED}")
    designs = [design for shop in shops for design in unsold_designs(shop.assortment, shop.items)]
    chosen = chance.sample(designs, recipe.num_clip_pictures)
    pictures = draw_designs(chosen, chance, "what to train the encoder on")
    captions = [caption(design) for design in chosen]
    seen, unseen = slice(recipe.num_clip_held_out, None), slice(recipe.num_clip_held_out)
    with progress_bar() as report:
        train_clip(clip, pictures[seen], captions[seen], num_steps=recipe.num_clip_steps, seed=SEED, progress=report)
    accuracy = retrieval_accuracy(clip, pictures[unseen], captions[unseen])
    print(f"encoder: {accuracy:.1%} of {recipe.num_clip_held_out} unseen pictures are nearest to their own caption")
    clip.save(folder)
    return clip


@dataclass(frozen=True)
class Customers:
    """A shop's customers: two halves of spring's, and summer's."""

    of_backbone: tuple[Person, ...]
    of_adapters: tuple[Person, ...]
    held_out: tuple[Person, ...]

    @classmethod
    def of(cls, shop: Shop, recipe: Recipe) -> Customers:
        spring = shop.customers("spring", 2 * recipe.num_customers, SEED)
        summer = shop.customers("summer", recipe.num_held_out, SEED)
        return cls(spring[: recipe.num_customers], spring[recipe.num_customers :], summer)


def _write_datasets(shop: Shop, features: ItemFeatures, recipe: Recipe, places: Places) -> None:
    """Identifiers are made of what the backbone's customers bought.

    Summer's customers are also in the adapters' table of users, because it becomes the bundle's.
    """
    people = Customers.of(shop, recipe)
    drawn = make_dataset(shop, "spring", people.of_backbone, seed=SEED, features=features)
    index = index_semantically(drawn, CODES[shop.name])
    print(f"{shop.name}: {index.report.num_paths} paths of codes, {index.report.num_moved} items on the nearest one")
    index.dataset.write(places.work / f"{shop.name}-backbone")
    adapters = make_dataset(shop, "spring", people.of_adapters, seed=SEED, features=features, newcomers=people.held_out)
    _indexed_as(index.dataset, adapters).write(places.work / f"{shop.name}-adapters")
    held_out = make_dataset(shop, "summer", people.held_out, seed=SEED, features=features)
    _indexed_as(index.dataset, held_out).write(places.held_out / shop.name)


def _indexed_as(indexed: Dataset, dataset: Dataset) -> Dataset:
    """A dataset of the same items with the identifiers of another one."""
    provenance = replace(dataset.provenance, indexing=indexed.provenance.indexing)
    return replace(dataset, provenance=provenance, catalog=indexed.catalog, codebook=indexed.codebook)


def _texts(work: Path) -> Iterator[str]:
    """All texts whose words should be single tokens."""
    yield from (template.text for template in TEMPLATES.values())
    yield from (UNKNOWN_TITLE, "yes no", "item_", "user_", "->")
    for name in sorted(assortment.domain for assortment in ASSORTMENTS):
        yield from texts_of(Dataset.read(work / f"{name}-backbone"))


def _train_all(work: Path, recipe: Recipe, num_processes: int) -> list[str]:
    """Train all chains, several at once if `num_processes` is more than 1; returns the hash of each one's result."""
    if num_processes == 1:
        return [_train_chain(chain, work, recipe) for chain in CHAINS]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, torch.set_num_threads, (torch.get_num_threads(),)) as processes:
        results = [processes.submit(_train_chain, chain, work, recipe) for chain in CHAINS]
        return [result.result() for result in results]


def _train_chain(chain: Sequence[str], work: Path, recipe: Recipe) -> str:
    """Train according to run files, one after another; returns the hash of the last bundle."""
    return [train(name, work, recipe) for name in chain][-1]


def train(name: str, work: Path, recipe: Recipe) -> str:
    """Train according to a run file in the work folder; returns the hash of the bundle written."""
    run = _shortened(read_run(Path(shutil.copy(RUNS / f"{name}.toml", work))), recipe.num_steps)
    if (run.out / MANIFEST).exists():
        return read_manifest(run.out).hash
    with progress_bar() as report:
        result = tune(run, progress=lambda what, done, total: report(f"{name}: {what}", done, total))
    measures = result.measures
    print(
        f"{name}: {result.counts.trainable:,} of {result.counts.total:,} parameters trained in {measures.steps} steps, "
        f"{measures.seconds:.0f} s",
        flush=True,
    )
    assert result.bundle_hash is not None, "one process trains, so it is the one that writes"
    return result.bundle_hash


def _shortened(run: Run, num_steps: int | None) -> Run:
    if num_steps is None:
        return run
    optimiser = msgspec.structs.replace(run.file.optimiser, steps=num_steps)
    return msgspec.structs.replace(run, file=msgspec.structs.replace(run.file, optimiser=optimiser))


if __name__ == "__main__":
    sys.exit(main())

"""What is fuzzed: for each kind of file, a function that damages one and reads it as the project does.

Each imports what it needs, because a process tries one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from model.errors import Vip5Error
from tests.fuzz.mutation import mutated

Target = Callable[[Random], object]


def admitted() -> tuple[type[Exception], ...]:
    """Refusals; any other exception is a fault."""
    from feature_cache.encoding.sources import PictureError

    return Vip5Error, PictureError


@dataclass(frozen=True)
class Damaged:
    """Reads one of several files after random damage; the other files stay as they are."""

    originals: dict[Path, bytes]
    read: Callable[[], object]
    between: Callable[[], object] = lambda: None

    def __call__(self, chance: Random) -> object:
        path = chance.choice(sorted(self.originals))
        path.write_bytes(mutated(self.originals[path], chance))
        try:
            self.between()
            return self.read()
        finally:
            path.write_bytes(self.originals[path])


def _originals(*paths: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in paths}


def pickles(folder: Path) -> Target:
    from model.datasets.pickles import read_pickle
    from tests.fuzz.pickles import random_pickle

    path = folder / "found.pkl"

    def target(chance: Random) -> object:
        path.write_bytes(random_pickle(chance))
        return repr(read_pickle(path))

    return target


def checkpoints(folder: Path) -> Target:
    from model.bundle.importers.checkpoint import read_checkpoint
    from tests.tiny import tiny_checkpoint

    path, _ = tiny_checkpoint().save(folder)
    return Damaged(_originals(path), lambda: read_checkpoint(path))


def documents(folder: Path) -> Target:
    from model.bundle.documents import read_backbone_config, read_domain_spec
    from model.bundle.manifest import read_manifest
    from tests.tiny import tiny_bundle

    root = tiny_bundle(folder)
    spec, config, manifest = (
        root / name for name in ("domains/toys/domain.json", "backbone/config.json", "manifest.json")
    )

    def read() -> object:
        return read_domain_spec(spec, "toys"), read_backbone_config(config), read_manifest(root)

    return Damaged(_originals(spec, config, manifest), read)


def tensors(folder: Path) -> Target:
    from model.bundle.tensors import read_tensors
    from tests.tiny import tiny_bundle

    path = tiny_bundle(folder) / "domains" / "toys" / "adapter.safetensors"
    return Damaged(_originals(path), lambda: [float(each.float().sum()) for each in read_tensors(path).values()])


def features(folder: Path) -> Target:
    import numpy as np

    from model.bundle.features import load_features, write_features
    from tests.tiny import tiny_catalog, tiny_features

    path, catalog = folder / "features.safetensors", tiny_catalog(20)
    write_features(path, tiny_features(catalog, 8))
    return Damaged(_originals(path), lambda: np.asarray(load_features(path).features).sum())


def arrays(folder: Path) -> Target:
    import numpy as np

    from model.bundle.importers.feature_folders import read_feature_folder
    from model.progress import no_progress
    from tests.tiny import tiny_catalog

    catalog = tiny_catalog(3)
    for row, dtype in enumerate((np.float32, np.float16, np.float64), start=1):
        np.save(folder / f"item-{row}.npy", np.ones(8, dtype))
    paths = sorted(folder.glob("*.npy"))
    return Damaged(_originals(*paths), lambda: read_feature_folder(folder, catalog, no_progress))


def tables(folder: Path) -> Target:
    from model.bundle.catalog import Catalog
    from model.bundle.users import Users
    from tests.tiny import tiny_catalog

    catalog, users = folder / "catalog.parquet", folder / "users.parquet"
    tiny_catalog(30).write(catalog)
    Users.from_rows({"user_id": f"u{n}", "index": str(n), "name": f"Ann {n}"} for n in range(9)).write(users)

    def read() -> object:
        found = Catalog.read(catalog)
        return found.item_ids, found.titles, found.search("toy", 0, 5), Users.read(users).search("ann", 0, 5)

    return Damaged(_originals(catalog, users), read)


def json_tables(folder: Path) -> Target:
    from model.bundle.catalog import Catalog
    from model.bundle.tables import read_source

    path = folder / "items.jsonl"
    line = '{"item_id": "item-%d", "index": "%d", "title": "toy", "price": 1.5, "tags": ["new"], "active": true}\n'
    path.write_text("".join(line % (n, n) for n in range(8)), encoding="utf-8")
    return Damaged(_originals(path), lambda: Catalog.from_table(read_source(path), path.name).item_ids)


def tokenizers(folder: Path) -> Target:
    from model.prompts.tokenizer import TextTokenizer
    from tests.tiny import tiny_bundle

    path = tiny_bundle(folder) / "backbone" / "tokenizer.json"
    return Damaged(_originals(path), lambda: TextTokenizer.from_file(path).words("user 12 likes the toy"))


def ids(folder: Path) -> Target:
    """Embeddings beside a file of their items' ids."""
    from model.bundle.features import write_features
    from model.bundle.importers.features import read_features
    from tests.tiny import tiny_catalog, tiny_features

    catalog = tiny_catalog(12)
    path = folder / "found.safetensors"
    found = tiny_features(catalog, 8)
    write_features(path, found)
    (folder / "found.ids.txt").write_text("\n".join(found.item_ids) + "\n", encoding="utf-8")
    return Damaged(_originals(folder / "found.ids.txt"), lambda: read_features(path, catalog))


def lines(folder: Path) -> Target:
    from model.datasets.faults import Faults
    from model.datasets.item_lines import read_item_lines
    from model.datasets.text_lines import Source

    path = folder / "sequences.txt"
    path.write_text("".join(f"{user} {user + 1} {user + 2} 7\n" for user in range(1, 30)), encoding="utf-8")
    return Damaged(_originals(path), lambda: read_item_lines(Source(path, Faults()), only_numbers=True))


def keys(folder: Path) -> Target:
    from service.http.api_keys import ApiKeys, new_key

    path = folder / "keys.jsonl"
    path.write_text("".join(f"{new_key(name).line}\n" for name in ("shop", "app", "mail")), encoding="utf-8")
    return Damaged(_originals(path), lambda: ApiKeys(path).problems)


def journals(folder: Path) -> Target:
    import asyncio

    from service.versions.file_journal import SNAPSHOT, FileJournal
    from service.versions.state import ENTRIES, STATES, Roles
    from tests.unit.versions.entries import FIRST, SECOND, features_entry, roles_entry, stock_entry

    path = folder / "journal.jsonl"
    entries = (
        roles_entry(1, Roles(FIRST)),
        stock_entry(2, "item-1", "item-2", key="k"),
        roles_entry(3, Roles(SECOND)),
        features_entry(4, **{"item-1": "AAAA"}),
    )
    snapshot = SNAPSHOT + STATES.dump_json({}) + b"\n"
    path.write_bytes(snapshot + b"".join(ENTRIES.dump_json(entry) + b"\n" for entry in entries))

    def read() -> object:
        journal = FileJournal(path, is_written=False)
        return asyncio.run(journal.open()), journal.problems

    return Damaged(_originals(path), read)


def pictures(folder: Path) -> Target:
    from feature_cache.encoding.pictures import FORMATS, decode

    originals: Sequence[bytes] = [_picture(kind) for kind in FORMATS]
    return lambda chance: decode(mutated(chance.choice(originals), chance)).tobytes()


def _picture(kind: str) -> bytes:
    from io import BytesIO

    from PIL import Image

    file, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    image = Image.frombytes("RGB", (40, 30), Random(1).randbytes(40 * 30 * 3))
    image.save(file, kind, **({} if kind in {"PPM", "BMP", "GIF"} else {"exif": exif}))
    return file.getvalue()


def bundles(folder: Path) -> Target:
    """Whole bundles, one file of which is damaged and then listed as it is, as an attacker would."""
    import shutil

    from model.bundle.bundle import open_bundle
    from model.bundle.manifest import write_manifest
    from tests.tiny import tiny_bundle

    root = tiny_bundle(folder, num_items=20)
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "manifest.json"]

    def target(chance: Random) -> object:
        copy = folder / "copy"
        shutil.copytree(root, copy)
        try:
            path = copy / chance.choice(paths).relative_to(root)
            path.write_bytes(mutated(path.read_bytes(), chance))
            write_manifest(copy)
            return open_bundle(copy)
        finally:
            shutil.rmtree(copy)

    return target


TARGETS: dict[str, Callable[[Path], Target]] = {
    each.__name__: each
    for each in (
        *(pickles, checkpoints, documents, tensors, features, arrays, tables, json_tables),
        *(tokenizers, ids, lines, keys, journals, pictures, bundles),
    )
}

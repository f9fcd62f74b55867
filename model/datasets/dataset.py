"""A prepared dataset, which training and evaluation read.

    <dataset>/
      dataset.json             format, name, source, and the numbers of skipped lines by rule
      items.parquet            a catalog, as in a bundle, with the number of each item's training interactions
      users.parquet            user_id, index, name; as in a bundle
      interactions.parquet     user, item, timestamp: rows of the two tables, each user's interactions oldest first
      reviews.parquet          optional: user, item, split, star_rating, headline, feature, explanation
      negatives.parquet        optional: user, items: a published sample of items that the user never had
      features.safetensors     optional: image embeddings, as in a bundle
      codebook.safetensors     optional: the codes that identifiers are made of, as in a bundle

A user's last item is the test target, the one before it the validation target; training sees the items before those.
"""

# U users, N items, L interactions, R reviews

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.codebook import Codebook, read_codebook, write_codebook
from model.bundle.features import ItemFeatures, load_features, write_features
from model.bundle.tables import read_parquet, write_parquet
from model.bundle.users import Users
from model.errors import DatasetError
from model.prompts.templates import Template

FORMAT_VERSION = 1

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
NUM_HELD_OUT: dict[Split, int] = {"train": 2, "val": 1, "test": 0}
"""How many of a user's last interactions come after each split."""

_INTERACTIONS = pa.schema({"user": pa.int64(), "item": pa.int64(), "timestamp": pa.int64()})
_REVIEW_FIELDS: list[pa.Field[Any]] = [
    pa.field("user", pa.int64()),
    pa.field("item", pa.int64()),
    pa.field("split", pa.string()),
    pa.field("star_rating", pa.float64()),
    pa.field("headline", pa.string()),
    pa.field("feature", pa.string()),
    pa.field("explanation", pa.string()),
]
_REVIEWS = pa.schema(_REVIEW_FIELDS)
_NEGATIVES = pa.schema({"user": pa.int64(), "items": pa.list_(pa.int64())})


@dataclass(frozen=True)
class Provenance:
    """Where a dataset came from. `faults` counts what the reader skipped, by rule."""

    name: str
    source: str
    indexing: str = "sequential"
    faults: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sequences:
    """Every user's items, oldest first, in one array; user u has `items[offsets[u]:offsets[u + 1]]`."""

    items: NDArray[np.int64]  # [L] rows of the catalog
    offsets: NDArray[np.int64]  # [U + 1]
    timestamps: NDArray[np.int64] | None = None  # [L] seconds since 1970, where they are known

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, user: int) -> NDArray[np.int64]:
        """All items of a user's row."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def seen(self, user: int, split: Split) -> NDArray[np.int64]:
        """The items that a split may show: those before its target, or in train all that is not held out."""
        held_out = NUM_HELD_OUT[split] + (split != "train")
        return self.of(user)[: max(len(self.of(user)) - held_out, 0)]

    def training_counts(self, num_items: int) -> NDArray[np.int64]:
        """How often training sees each item, [N]."""
        places = np.repeat(self.offsets[1:], np.diff(self.offsets)) - np.arange(len(self.items))  # from the end, from 1
        return np.bincount(self.items[places > NUM_HELD_OUT["train"]], minlength=num_items)

    def users(self, split: Split) -> NDArray[np.int64]:
        """Rows of the users with a target in a split, and at least one item before it."""
        return np.flatnonzero(np.diff(self.offsets) >= NUM_HELD_OUT[split] + 2)

    def have_unknown_items(self, num_items: int) -> NDArray[np.bool_]:
        """Whether each user, [U], has never had at least one of the catalog's items."""
        users = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        pairs = np.unique(users * num_items + self.items)
        num_had = np.bincount(pairs // max(num_items, 1), minlength=len(self))
        return num_had < num_items

    def target(self, user: int, split: Literal["val", "test"]) -> int:
        """The item to predict."""
        return int(self.of(user)[-1 - NUM_HELD_OUT[split]])


@dataclass(frozen=True)
class Review:
    """One review; unknown fields are None. `user` and `item` are rows."""

    user: int
    item: int
    split: Split
    star_rating: float | None
    headline: str | None
    feature: str | None
    explanation: str | None

    def can_fill(self, template: Template) -> bool:
        """Whether the review has all that the template names, and a rating if the answer begins with one."""
        return (
            (bool(self.feature) or not template.needs("feature"))
            and (bool(self.headline) or not template.needs("headline"))
            and (self.star_rating is not None or not (template.needs("stars") or template.predicts_rating))
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in memory; users and items are rows of `users` and `catalog`."""

    provenance: Provenance
    catalog: Catalog
    users: Users
    sequences: Sequences
    reviews: tuple[Review, ...] = ()
    negatives: dict[int, NDArray[np.int64]] = field(default_factory=dict)  # by user
    features: ItemFeatures | None = None
    codebook: Codebook | None = None

    def __post_init__(self) -> None:
        _check_rows(self)

    @property
    def counted_catalog(self) -> Catalog:
        """The catalog with the number of each item's training interactions."""
        return self.catalog.counted(self.sequences.training_counts(len(self.catalog)))

    @classmethod
    def read(cls, folder: Path) -> Dataset:
        """Read a folder; raises DatasetError naming the file and the rule."""
        provenance = _read_provenance(folder)
        users = Users.read(folder / "users.parquet")
        interactions = _read_table(folder / "interactions.parquet", _INTERACTIONS)
        reviews, negatives, features = (folder / name for name in ("reviews.parquet", "negatives.parquet", FEATURES))
        return cls(
            provenance=provenance,
            catalog=Catalog.read(folder / "items.parquet", "items.parquet"),
            users=users,
            sequences=_sequences(interactions, len(users)),
            reviews=_reviews(_read_table(reviews, _REVIEWS)) if reviews.exists() else (),
            negatives=_negatives(_read_table(negatives, _NEGATIVES)) if negatives.exists() else {},
            features=load_features(features) if features.exists() else None,
            codebook=read_codebook(folder / CODEBOOK) if (folder / CODEBOOK).exists() else None,
        )

    def write(self, folder: Path) -> None:
        """Write all files into a folder, creating it if necessary."""
        folder.mkdir(parents=True, exist_ok=True)
        self.counted_catalog.write(folder / "items.parquet")
        self.users.write(folder / "users.parquet")
        sequences = self.sequences
        timestamps = pa.nulls(len(sequences.items), pa.int64())
        columns = {
            "user": np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets)),
            "item": sequences.items,
            "timestamp": timestamps if sequences.timestamps is None else sequences.timestamps,
        }
        write_parquet(folder / "interactions.parquet", pa.table(columns, schema=_INTERACTIONS))
        if self.reviews:
            rows = [asdict(review) for review in self.reviews]
            write_parquet(folder / "reviews.parquet", pa.Table.from_pylist(rows, schema=_REVIEWS))
        if self.negatives:
            samples = {"user": list(self.negatives), "items": [items.tolist() for items in self.negatives.values()]}
            write_parquet(folder / "negatives.parquet", pa.table(samples, schema=_NEGATIVES))
        if self.features is not None:
            write_features(folder / FEATURES, self.features)
        if self.codebook is not None:
            write_codebook(folder / CODEBOOK, self.codebook)
        document = {"format": FORMAT_VERSION, **asdict(self.provenance)}
        (folder / DATASET).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


DATASET = "dataset.json"
FEATURES = "features.safetensors"
CODEBOOK = "codebook.safetensors"


def _check_rows(dataset: Dataset) -> None:
    name = dataset.provenance.name
    if len(dataset.sequences) != len(dataset.users):
        raise DatasetError(
            f"{name} has {len(dataset.users)} users, but {len(dataset.sequences)} sequences; prepare the dataset again"
        )
    items = dataset.sequences.items
    if len(items) and not 0 <= items.min() <= items.max() < len(dataset.catalog):
        raise DatasetError(
            f"{name}: interactions have items {items.min()} to {items.max()}, but the catalog has rows 0 to "
            f"{len(dataset.catalog) - 1}; prepare the dataset again"
        )
    for review in dataset.reviews:
        if not (0 <= review.user < len(dataset.users) and 0 <= review.item < len(dataset.catalog)):
            raise DatasetError(
                f"{name}: a review has user {review.user} and item {review.item}, but users have rows 0 to "
                f"{len(dataset.users) - 1} and items 0 to {len(dataset.catalog) - 1}; prepare the dataset again"
            )


def _read_provenance(folder: Path) -> Provenance:
    path = folder / DATASET
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{folder} has no {DATASET}; create a dataset with vip5 data prepare") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}; prepare the dataset again") from error
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT_VERSION:
        raise DatasetError(f"{path} must have format {FORMAT_VERSION}; prepare the dataset again with this version")
    try:
        return Provenance(**document)
    except TypeError as error:
        raise DatasetError(f"{path} has unexpected keys: {error}; prepare the dataset again") from error


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    table = read_parquet(path, path.name)
    if not table.schema.equals(schema):
        raise DatasetError(f"{path} has the columns {table.schema}, not {schema}; prepare the dataset again")
    return table


def _sequences(table: pa.Table, num_users: int) -> Sequences:
    users = table.column("user").to_numpy()
    if len(users) and not ((np.diff(users) >= 0).all() and users[0] >= 0 and users[-1] < num_users):
        raise DatasetError(
            f"interactions.parquet must be sorted by user, with users 0 to {num_users - 1}; prepare the dataset again"
        )
    timestamps = table.column("timestamp")
    return Sequences(
        items=table.column("item").to_numpy(),
        offsets=np.searchsorted(users, np.arange(num_users + 1)),
        timestamps=None if timestamps.null_count else timestamps.to_numpy(),
    )


def _reviews(table: pa.Table) -> tuple[Review, ...]:
    unknown = {str(split) for split in table.column("split").unique().to_pylist()} - set(SPLITS)
    if unknown:
        raise DatasetError(f"reviews.parquet has the splits {sorted(unknown)}; use only {', '.join(SPLITS)}")
    return tuple(Review(**row) for row in table.to_pylist())


def _negatives(table: pa.Table) -> dict[int, NDArray[np.int64]]:
    users = cast("list[int]", table.column("user").to_pylist())
    listed = cast("list[list[int]]", table.column("items").to_pylist())
    return {user: np.asarray(items, dtype=np.int64) for user, items in zip(users, listed, strict=True)}

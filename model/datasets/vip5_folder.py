"""Reader for a domain's folder as VIP5 and P5 preprocess it; only sequential_data.txt is required.

The numbers of users and items in sequential_data.txt are the model's identifiers. Texts are kept unchanged, because
checkpoints were trained on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.joins import Join, Names
from model.datasets.dataset import SPLITS, Dataset, Provenance, Review
from model.datasets.explanations import REVIEW_FIELDS, ReviewRows, merged
from model.datasets.faults import Faults
from model.datasets.feature_folders import read_feature_folders
from model.datasets.field_names import FieldNames
from model.datasets.ids import id_text
from model.datasets.item_facts import UNKNOWN_FACTS, ItemFacts, catalog_of, read_metadata
from model.datasets.item_lines import ItemLines, in_catalog_order, indexing_of, read_item_lines
from model.datasets.lines import mapped_ids, users_of
from model.datasets.pickles import read_pickle
from model.datasets.text_lines import Source
from model.datasets.values import Fields
from model.errors import DatasetError
from model.progress import Progress, no_progress

SEQUENCES = "sequential_data.txt"
_IGNORED = ("reviewText", "reviewTime", "unixReviewTime", "helpful", "adj", "score", "sentence", "template", "id")
"""Fields of VIP5's and P5's records that are not read."""


def read_vip5_folder(
    folder: Path, name: str, faults: Faults, progress: Progress = no_progress, features: Path | None = None
) -> Dataset:
    """Read a dataset from a folder; broken lines and records are skipped and counted in `faults`.

    `features` is a folder with `<asin>.npy` files at any depth (default: `features` inside the folder, if it exists).
    Raises DatasetError for a file that cannot be read, UnsafeFileError for a pickle that could run code.
    """
    path = _find(folder, SEQUENCES)
    if path is None:
        raise DatasetError(f"{folder} has no {SEQUENCES}; give the folder of one domain as VIP5 or P5 preprocesses it")
    lines = read_item_lines(Source(path, faults, progress), only_numbers=True)
    datamaps = _find(folder, "datamaps.json")
    id_of_item, id_of_user = mapped_ids(datamaps, lines, faults)
    names = in_catalog_order([*lines.item_names(), *id_of_item])
    item_rows = {item: row for row, item in enumerate(names)}
    user_rows = {user: row for row, user in enumerate(lines.users)}
    sequences = lines.rows(item_rows)
    catalog = _catalog(folder, [id_of_item.get(item, item) for item in names], names, faults, progress)
    rows = ReviewRows(
        row_of_user=user_rows | {id_of_user[user]: row for user, row in user_rows.items() if user in id_of_user},
        row_of_item=item_rows | {item_id: row for row, item_id in enumerate(catalog.item_ids)},
        sequences=sequences,
    )
    reviews, reviewers = _reviews(folder, rows, faults, progress)
    negatives = {}
    path = _find(folder, "negative_samples.txt")
    if path is not None:
        source = Source(path, faults, progress)
        negatives = read_item_lines(source, only_numbers=True).by_user_row(user_rows, item_rows, source)
    return Dataset(
        provenance=Provenance(name, "vip5", indexing_of(names, sequences), dict(faults.counts)),
        catalog=catalog,
        users=users_of(lines.users, id_of_user, _user_names(folder, lines, id_of_user, reviewers, faults)),
        sequences=sequences,
        reviews=reviews,
        negatives=negatives,
        features=_features(folder, features, catalog, faults, progress),
    )


def _find(folder: Path, name: str) -> Path | None:
    """A file, plain or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _catalog(folder: Path, item_ids: list[str], names: list[str], faults: Faults, progress: Progress) -> Catalog:
    """Items with their attributes from meta.json."""
    path = _find(folder, "meta.json")
    facts: dict[str, ItemFacts] = {}
    if path is not None:
        facts = read_metadata(Source(path, faults, progress), set(item_ids), clean=str)
        without = [item_id for item_id in item_ids if item_id not in facts]
        faults.notice(str(Join(len(item_ids), f"a line in {path.name}", "line", without)))
    return catalog_of(item_ids, names, [facts.get(item_id, UNKNOWN_FACTS) for item_id in item_ids])


def _reviews(
    folder: Path, rows: ReviewRows, faults: Faults, progress: Progress
) -> tuple[tuple[Review, ...], dict[int, str]]:
    """Reviews of both files, those with explanations first, and reviewers' names by user row."""
    reviewers: dict[int, str] = {}
    found: dict[str, list[Review]] = {}
    for name in ("exp_splits.pkl", "review_splits.pkl"):
        path = folder / name
        found[name] = _read_splits(path, rows, reviewers, faults, progress) if path.is_file() else []
    return merged(found["review_splits.pkl"], found["exp_splits.pkl"]), reviewers


def _read_splits(
    path: Path, rows: ReviewRows, reviewers: dict[int, str], faults: Faults, progress: Progress
) -> list[Review]:
    progress(f"reading {path.name}", 0, None)
    splits = read_pickle(path)
    if not _is_splits(splits):
        raise DatasetError(f"{path.name} must be a dict with the lists {', '.join(SPLITS)}; download the file again")
    names = FieldNames(REVIEW_FIELDS, _IGNORED)
    reviews = []
    for split in SPLITS:
        for number, record in enumerate(splits[split]):
            place = f"{path.name}:{split}[{number}]"
            if not isinstance(record, dict):
                faults.add("the record is not a dict", place)
                continue
            fields = Fields(names.named({str(key): value for key, value in record.items()}), faults, place)
            review = rows.review_of(fields, split)
            if isinstance(review, str):
                faults.add(review, place)
                continue
            reviews.append(review)
            name = fields.text("reviewerName")
            if name is not None:
                reviewers.setdefault(review.user, name)
    if not reviews and any(splits[split] for split in SPLITS):
        found = "; ".join(filter(None, (*faults.descriptions(path.name), names.description())))
        raise DatasetError(f"{path.name} has no valid record: {found}; check the file")
    if names.unknown:
        faults.notice(f"{path.name}: {names.description()}")
    return reviews


def _is_splits(found: object) -> TypeGuard[dict[str, list[object]]]:
    return isinstance(found, dict) and all(isinstance(found.get(split), list) for split in SPLITS)


def _user_names(
    folder: Path, lines: ItemLines, id_of_user: Mapping[str, str], reviewers: Mapping[int, str], faults: Faults
) -> dict[str, str]:
    """Users' names by number, from user_id2name.pkl, else from their reviews."""
    path = folder / "user_id2name.pkl"
    names = read_pickle(path) if path.is_file() else {}
    if not isinstance(names, dict):
        raise DatasetError(f"{path.name} is a {type(names).__name__}; it must be a dict from user to name")
    called = {}
    for user, value in names.items():
        name = Fields({"name": value}, faults, f"{path.name}: user {user!r}").text("name")
        if name is not None:
            called[id_text(user) or ""] = name
    spellings = Names(called)
    found = {}
    without = []
    unused = set(called)
    for row, user in enumerate(lines.users):
        spelling = spellings.find(user) or spellings.find(id_of_user.get(user, ""))
        if spelling is None:
            without.append(user)
        else:
            unused.discard(spelling)
        name = reviewers.get(row) if spelling is None else called[spelling]
        if name is not None:
            found[user] = name
    if unused:
        join = Join(len(lines.users), f"a name in {path.name}", "name", without, sorted(unused), "no user", "users")
        faults.notice(str(join))
    return found


def _features(
    folder: Path, features: Path | None, catalog: Catalog, faults: Faults, progress: Progress
) -> ItemFeatures | None:
    own = folder / "features"
    if features is None and not own.is_dir():
        return None
    return read_feature_folders(features or own, catalog, faults, progress)

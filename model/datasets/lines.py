"""Reader for plain lines `user item item …`, oldest first, and optional files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.bundle.importers.features import read_features
from model.bundle.joins import Join, match
from model.bundle.users import Users
from model.datasets.dataset import Dataset, Provenance
from model.datasets.explanations import ReviewRows, read_explanations
from model.datasets.faults import Faults
from model.datasets.ids import id_text
from model.datasets.item_facts import catalog_of
from model.datasets.item_lines import ItemLines, in_catalog_order, indexing_of, read_item_lines
from model.datasets.named_items import UNNAMED, NamedItem, read_named_items
from model.datasets.text_lines import Source, read_json_object
from model.datasets.values import shown
from model.errors import DatasetError
from model.progress import Progress, no_progress

_MAPS = ("id2item", "item2id", "id2user", "user2id")


@dataclass(frozen=True)
class LinesSource:
    """Files of a dataset; only the sequences are required. Each may be gzipped."""

    sequences: Path  # user item item …
    items: Path | None = None  # JSON lines: item, item_id or asin, title, categories, …
    datamaps: Path | None = None  # JSON: id2item, id2user
    explanations: tuple[Path, ...] = ()  # JSON lines: user, item, feature, explanation
    negatives: Path | None = None  # user item item …
    features: Path | None = None  # a folder of <item_id>.npy, or safetensors beside its .ids.txt


def read_lines(files: LinesSource, name: str, faults: Faults, progress: Progress = no_progress) -> Dataset:
    """Read a dataset from plain lines; broken lines are skipped and counted in `faults`.

    An item's identifier is its name in the lines. Raises DatasetError for a file that cannot be read and for an id that
    may stand for another, CatalogError for two items with one id.
    """
    lines = read_item_lines(Source(files.sequences, faults, progress))
    known: dict[str, NamedItem] = {}
    if files.items is not None:
        known = read_named_items(Source(files.items, faults, progress), lines.item_names(), "no sequence")
    id_of_item, id_of_user = mapped_ids(files.datamaps, lines, faults)
    names = in_catalog_order([*lines.item_names(), *known, *id_of_item])
    items = [known.get(item, UNNAMED) for item in names]
    item_ids = [item.item_id or id_of_item.get(name, name) for name, item in zip(names, items, strict=True)]
    catalog = catalog_of(item_ids, names, [item.facts for item in items])
    rows = {item: row for row, item in enumerate(names)}
    sequences = lines.rows(rows)
    user_rows = {user: row for row, user in enumerate(lines.users)}
    review_rows = ReviewRows(
        row_of_user={id_of_user[user]: row for user, row in user_rows.items() if user in id_of_user} | user_rows,
        row_of_item={item_id: row for row, item_id in enumerate(item_ids)} | rows,
        sequences=sequences,
    )
    explanations = read_explanations(files.explanations, review_rows, faults, progress)
    negatives = {}
    if files.negatives is not None:
        source = Source(files.negatives, faults, progress)
        negatives = read_item_lines(source).by_user_row(user_rows, rows, source)
    features = None
    if files.features is not None:
        features = read_features(files.features, catalog, progress, faults.notice)
    return Dataset(
        provenance=Provenance(name, "lines", indexing_of(names, sequences), dict(faults.counts)),
        catalog=catalog,
        users=users_of(lines.users, id_of_user, {}),
        sequences=sequences,
        reviews=explanations,
        negatives=negatives,
        features=features,
    )


def users_of(names: Sequence[str], id_of_user: Mapping[str, str], called: Mapping[str, str]) -> Users:
    """Users whose index is their name in the lines; `called` has their names for prompts."""
    return Users.from_rows(
        {"user_id": id_of_user.get(user, user), "index": user, "name": called.get(user)} for user in names
    )


def read_datamaps(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The original ids of items and of users by number; one of both may be empty."""
    document = read_json_object(path)
    if not any(isinstance(document.get(name), Mapping) for name in _MAPS):
        raise DatasetError(
            f"{path.name} has no map {' or '.join(_MAPS)}; its keys are "
            f"{', '.join(map(repr, list(document)[:8])) or 'none'}. Give at least one, from numbers to ids or back"
        )
    wrong = next((name for name in _MAPS if not isinstance(document.get(name, {}), Mapping)), None)
    if wrong is not None:
        raise DatasetError(f"{path.name}: {wrong} is {shown(document[wrong])}; it must map numbers to ids, or back")
    maps = []
    for forward, backward in (("id2item", "item2id"), ("id2user", "user2id")):
        numbered, named = document.get(forward), document.get(backward)
        if isinstance(numbered, Mapping):
            maps.append(_id_of_number(numbered.items(), f"{path.name}: {forward}"))
        elif isinstance(named, Mapping):
            maps.append(_id_of_number(((number, found) for found, number in named.items()), f"{path.name}: {backward}"))
        else:
            maps.append({})
    return maps[0], maps[1]


def mapped_ids(path: Path | None, lines: ItemLines, faults: Faults) -> tuple[dict[str, str], dict[str, str]]:
    """The ids of items and of users by their spelling in the lines, from a file of maps, if there is one.

    `faults` is told what did not meet. Items of no sequence stay in the catalog, and those without an id keep the
    name that the lines have. Raises DatasetError for a map that has none of the lines' items, or of their users.
    """
    if path is None:
        return {}, {}
    maps = read_datamaps(path)
    sides = ((maps[0], lines.item_names(), "items"), (maps[1], list(lines.users), "users"))
    return tuple(_as_spelled(found, names, path, of_what, faults) for found, names, of_what in sides)  # type: ignore[return-value]  # of two


def _as_spelled(
    id_of: Mapping[str, str], names: Sequence[str], path: Path, of_what: str, faults: Faults
) -> dict[str, str]:
    """A map by the names of the lines; others keep their own."""
    if not id_of:
        return {}
    spelled = list(id_of)
    place_of, unmatched = match(spelled, names)
    if not place_of:
        raise DatasetError(
            f"{path.name} has no id of any of the {of_what}: it has {spelled[0]!r}, and the {of_what} are named like "
            f"{names[0]!r}; check that both belong together"
        )
    without = [name for name in names if name not in place_of]
    if without or unmatched:
        join = Join(len(names), f"an id in {path.name}", "id", without, unmatched, "no sequence", of_what)
        faults.notice(str(join))
    own = {name: id_of[spelled[place]] for name, place in place_of.items()}
    return own | {name: id_of[name] for name in unmatched}


def _id_of_number(pairs: Iterable[tuple[object, object]], where: str) -> dict[str, str]:
    """Ids by number. Raises DatasetError for a value that is no id, and for a number or an id with two partners."""
    found: dict[str, str] = {}
    number_of: dict[str, str] = {}
    for number, value in pairs:
        name, own = id_text(number), id_text(value)
        if name is None or own is None:
            raise DatasetError(f"{where} maps {number!r} to {value!r}; ids are strings or whole numbers")
        if found.setdefault(name, own) != own:
            raise DatasetError(f"{where} gives number {name} to {found[name]!r} and to {own!r}; give each its own")
        if number_of.setdefault(own, name) != name:
            raise DatasetError(f"{where} gives {own!r} the numbers {number_of[own]} and {name}; give it one")
    return found

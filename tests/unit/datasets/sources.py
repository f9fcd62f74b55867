"""Files as people have them, small: VIP5's folder, McAuley's raw files, plain lines."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

SEQUENCES = {1: [1, 2, 3, 4, 5], 2: [6, 2, 7, 1], 3: [3, 8, 5]}
ASINS = {number: f"B00{number:03}" for number in range(1, 10)}  # 9 is in no sequence
USERS = {1: "AAA", 2: "BBB", 3: "CCC"}
TITLES = {number: f"toy &amp; game {number}" for number in range(1, 9) if number != 4}


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Text lines, gzipped if the name says so."""
    data = "".join(f"{line}\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def write_json_lines(path: Path, records: Iterable[Mapping[str, object]]) -> Path:
    return write_lines(path, (json.dumps(record) for record in records))


def sequence_lines() -> list[str]:
    return [" ".join(map(str, (user, *items))) for user, items in SEQUENCES.items()]


def exp_record(user: int, item: int, **fields: object) -> dict[str, object]:
    return {"reviewerID": USERS[user], "asin": ASINS[item], "overall": 4.0, "summary": f"headline of {user}", **fields}


def vip5_folder(folder: Path) -> Path:
    """Everything that a preprocessed folder may have."""
    write_lines(folder / "sequential_data.txt", sequence_lines())
    write_lines(folder / "negative_samples.txt", ["1 6 7 8", "2 3 4 5", "3 1 2 4"])
    maps = {
        "user2id": {name: str(number) for number, name in USERS.items()},
        "item2id": {asin: str(number) for number, asin in ASINS.items()},
        "id2user": {str(number): name for number, name in USERS.items()},
        "id2item": {str(number): asin for number, asin in ASINS.items()},
    }
    (folder / "datamaps.json").write_text(json.dumps(maps))
    metadata = [
        {
            "asin": ASINS[number],
            **({"title": TITLES[number]} if number in TITLES else {}),
            "categories": [["Toys & Games", "Games", "Card Games"], ["Toys & Games", "Puzzles"]],
            "imUrl": f"http://pictures/{number}.jpg",
            "price": 1.5 * number,
        }
        for number in ASINS
    ]
    write_lines(folder / "meta.json.gz", map(repr, metadata))
    explained = {
        "train": [
            exp_record(1, 1, feature="dice", explanation="the dice are nice", reviewText="the dice are nice . bye"),
            exp_record(2, 2),
        ],
        "val": [exp_record(3, 8, feature="box", explanation="a fine box", reviewerName="Cleo")],
        "test": [exp_record(1, 5, feature="card", explanation="good cards")],
    }
    reviewed = {"train": [exp_record(1, 1), exp_record(2, 6, overall=2.0)], "val": [], "test": [exp_record(1, 5)]}
    save_pickle(folder / "exp_splits.pkl", explained)
    save_pickle(folder / "review_splits.pkl", reviewed)
    save_pickle(folder / "user_id2name.pkl", {"1": "Ann Lee", "2": "Bob"})
    for number, split in ((1, "train"), (2, "train"), (5, "test"), (1, "test")):
        write_feature(folder / "features/vitb32_features" / split / f"{ASINS[number]}.npy", number)
    return folder


def write_feature(path: Path, value: float, width: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full(width, value, dtype=np.float32))
    return path


def save_pickle(path: Path, found: object) -> Path:
    path.write_bytes(pickle.dumps(found))
    return path

"""Writes simulated purchases as text files, to try `vip5 data prepare lines` and training on.

    python -m demo.export --out data

writes `purchases.txt` (`user item item …`, oldest first) and `items.jsonl` (`item`, `title`, `price`) for customers of
the garment shop. The files have the form that your own data would need.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.datasets import Shop
from demo.designs import GARMENTS
from demo.make import SEED


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.export", description="Write simulated purchases as text.")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder for the files (default: data)")
    parser.add_argument("--customers", type=int, default=600, help="number of customers (default: 600)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in export(options.out, options.customers):
        print(path)
    return 0


def export(folder: Path, num_customers: int) -> tuple[Path, Path]:
    """Write both files; returns their paths."""
    shop = Shop.opened(GARMENTS, SEED)
    histories = (
        (person.user_id, *(purchase.item.item_id for purchase in person.history))
        for person in shop.customers("spring", num_customers, SEED)
    )
    items = ({"item": item.item_id, "title": item.title, "price": item.price} for item in shop.items)
    purchases, described = folder / "purchases.txt", folder / "items.jsonl"
    purchases.write_text("".join(" ".join(history) + "\n" for history in histories), encoding="utf-8")
    described.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return purchases, described


if __name__ == "__main__":
    sys.exit(main())

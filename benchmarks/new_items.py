"""How long does it take until a new item without an identifier is recommended?

Question  How long is it from the first byte of `PATCH /admin/domains/{d}/catalog`, which adds an item by its embedding,
          to the last byte of an answer that recommends it? How much of it is the change itself?
Method    A running service over HTTP with a tiny network, so that what is measured is the change. The catalog has
          identifiers of 64x64 codes and 512 last codes, spread over all paths by lot. Each round adds one item
          with a random embedding and asks for one recommendation among it and two others; before each round, the same
          request without a change is the baseline. The first round is not counted. CPU time is the engine process's.
Output    A line for each figure: median and worst of the rounds; the last line is JSON.

    python -m benchmarks.new_items [--items 1000 100000] [--rounds 9] [--workers N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from benchmarks.random_weights import initial_weights
from demo.language import make_tokenizer
from model.bundle.bundle import open_bundle
from model.bundle.catalog import Catalog
from model.bundle.codebook import Codebook, Projection
from model.bundle.index.cache import IndexCache
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.writer import BundleWriter
from model.network.config import BackboneConfig, DomainLayout
from tests.e2e.load import PATIENCE_S
from tests.e2e.processes import serving
from tests.service.live import AUTHORIZED, TOKEN

DOMAIN, DIM, WIDTH = "shop", 48, 10
SIZES, NUM_LAST = (64, 64), 512
LAYOUT = DomainLayout(
    bottleneck=4,
    cross_attention_adapter=True,
    one_adapter_for_all_tasks=True,
    visual_tokens=2,
    feature_dim=DIM,
    visual_norm=True,
    whole_word_rows=1024,
    category_rows=16,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    figures = {}
    for num_items in options.items:
        with tempfile.TemporaryDirectory(prefix="new-items-") as folder:
            build(Path(folder) / "first", num_items)
            open_bundle(Path(folder) / "first", indexes=IndexCache(Path(folder) / "indexes"))  # so that it starts soon
            figures[num_items] = asyncio.run(measure(Path(folder), options.rounds, options.workers))
        for name, value in figures[num_items].items():
            print(f"{num_items:>9,} items  {name:40} {value:10.1f}", flush=True)
    print(json.dumps({"workers": options.workers, "figures": figures}))


def build(root: Path, num_items: int) -> None:
    """A bundle with a tiny random network and a catalog of codes."""
    random = np.random.default_rng(0)
    tokenizer = make_tokenizer(["item_ user_ yes no unknown title"])
    config = BackboneConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_heads=4,
        num_layers=2,
        num_decoder_layers=2,
    )
    book = codebook(random)
    places = sorted(random.choice(len(book.seen) * NUM_LAST, num_items, replace=False).tolist())
    paths = book.seen.tolist()
    table = pa.table(
        {
            "item_id": [f"B{number:09d}" for number in range(num_items)],
            "index": [book.index_of(paths[place // NUM_LAST], place % NUM_LAST) for place in places],
            "title": [f"Product number {number} of a line of toys" for number in range(num_items)],
            "category": [f"category {number % 50}" for number in range(num_items)],
        }
    )
    with BundleWriter(root) as writer:
        writer.share_backbone(config, initial_weights(expected_shapes(config), 1), tokenizer)
        spec = DomainSpec(name=DOMAIN, layout=LAYOUT, backbone_sha256="", encoder=ImageEncoder("vitb32", DIM))
        adapter = initial_weights(expected_domain_shapes(config, LAYOUT), 2)
        writer.add_domain(spec, adapter, Catalog.from_table(table, "the catalog"), codebook=book)
        writer.seal()


def codebook(random: np.random.Generator) -> Codebook:
    """All paths are seen."""
    levels = tuple(random.standard_normal((size, WIDTH)).astype(np.float32) for size in SIZES)
    seen = np.stack(np.unravel_index(np.arange(np.prod(SIZES, dtype=int)), SIZES), axis=1).astype(np.int32)
    projection = Projection(random.standard_normal((DIM, WIDTH)).astype(np.float32), np.zeros(WIDTH, np.float32))
    return Codebook(SIZES, NUM_LAST, 100, seen, levels, projection)


async def measure(folder: Path, num_rounds: int, workers: int) -> dict[str, float]:
    environment = {
        "VIP5_ADMIN_TOKEN": TOKEN,
        "VIP5_JOURNAL": str(folder / "journal"),
        "VIP5_NUM_THREADS": "1",
        "VIP5_INDEX_CACHE": str(folder / "indexes"),
        **({"VIP5_WORKERS": str(workers), "VIP5_ADMIN_PORT": "0"} if workers else {}),
    }
    random = np.random.default_rng(1)
    times: dict[str, list[float]] = {
        "request alone": [],
        "PATCH": [],
        "PATCH, CPU": [],
        "request after it": [],
        "PATCH to recommended": [],
    }
    with serving(folder / "first", environment) as server:
        async with (
            httpx.AsyncClient(base_url=server.admin_url or server.url, timeout=PATIENCE_S) as admin,
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
        ):
            for number in range(num_rounds + 1):
                begin = time.perf_counter()
                await ask(client, ["B000000001", "B000000002"])
                asked, cpu_before = time.perf_counter(), cpu_seconds(server.process.pid)
                item_id = f"new-{number}"
                row = {"item_id": item_id, "title": "a new toy", "feature": random.standard_normal(DIM).tolist()}
                response = await admin.patch(
                    f"/admin/domains/{DOMAIN}/catalog", json={"add": [row]}, headers=AUTHORIZED
                )
                assert response.status_code == httpx.codes.OK, response.text
                assert item_id in response.json()["indices"]
                changed, cpu_after = time.perf_counter(), cpu_seconds(server.process.pid)
                found = await ask(client, ["B000000001", "B000000002", item_id])
                done = time.perf_counter()
                assert item_id in found
                if number:
                    measured = (asked - begin, changed - asked, cpu_after - cpu_before, done - changed, done - asked)
                    for name, seconds in zip(times, measured, strict=True):
                        times[name].append(1000 * seconds)
    figures = {}
    for name, values in times.items():
        figures[f"{name}, ms, median"] = statistics.median(values)
        figures[f"{name}, ms, worst"] = max(values)
    return figures


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all threads together, which other work on the machine does not lengthen."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(client: httpx.AsyncClient, among: list[str]) -> list[str]:
    body: dict[str, Any] = {"domain": DOMAIN, "history": ["B000000000"], "k": 3, "include_items": among}
    response = await client.post("/recommend/sequential", json=body)
    assert response.status_code == httpx.codes.OK, response.text
    return [item["item_id"] for item in response.json()["items"]]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
